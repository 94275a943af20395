ARG sid
FROM $sid
COPY redis-entrypoint /usr/local/bin/
WORKDIR /data
# Debian's folder of settings is closed to others, and the official image has none.
RUN chmod 1777 /data && rm -rf /etc/redis
VOLUME /data
ENTRYPOINT ["redis-entrypoint"]
CMD ["redis-server"]
