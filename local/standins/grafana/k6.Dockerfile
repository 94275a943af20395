# The program is the one that this machine has beside Docker, of the same version.
ARG bookworm
FROM $bookworm
COPY k6 /usr/bin/k6
ENTRYPOINT ["k6"]
