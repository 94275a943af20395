ARG sid
FROM $sid
ENTRYPOINT ["prometheus-mysqld-exporter"]
