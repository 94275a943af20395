ARG sid
FROM $sid
ENTRYPOINT ["prometheus-redis-exporter"]
