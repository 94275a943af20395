# Compiles nothing: its `cargo build` puts down the program that this machine has built, so that the rest of the service's
# Dockerfile runs as it is, in seconds.
ARG bookworm
FROM $bookworm
COPY cargo /usr/local/bin/cargo
COPY coupon-rush /usr/local/lib/coupon-rush
