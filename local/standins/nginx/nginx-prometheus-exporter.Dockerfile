ARG sid
FROM $sid
ENTRYPOINT ["prometheus-nginx-exporter"]
