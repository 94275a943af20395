ARG sid
FROM $sid
COPY redis-entrypoint /usr/local/bin/
WORKDIR /data
RUN chmod 1777 /data
VOLUME /data
ENTRYPOINT ["redis-entrypoint"]
CMD ["redis-server"]
