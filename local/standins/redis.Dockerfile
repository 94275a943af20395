ARG sid
FROM $sid
WORKDIR /data
# Debian's folder of settings is closed to others, and the official image has none.
RUN chmod 1777 /data && rm -rf /etc/redis
VOLUME /data
# The official image's Redis is built to answer other hosts without a password; Debian's has to be told.
ENTRYPOINT ["sh", "-c", "exec \"$@\" --protected-mode no", "redis"]
CMD ["redis-server"]
