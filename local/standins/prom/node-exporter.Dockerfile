ARG sid
FROM $sid
# The official name of the program.
RUN ln -s prometheus-node-exporter /usr/bin/node_exporter
ENTRYPOINT ["node_exporter"]
