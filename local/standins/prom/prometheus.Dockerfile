ARG sid
FROM $sid
WORKDIR /prometheus
RUN chown 65534:65534 /prometheus
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
