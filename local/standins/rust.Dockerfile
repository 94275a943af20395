# Compiles nothing: its `cargo build` puts down the program that this machine has built, and sees that all its sources were
# copied. So the service's Dockerfile runs as it is, in seconds.
ARG bookworm
FROM $bookworm
COPY cargo /usr/local/bin/cargo
COPY coupon-rush coupon-rush.d /usr/local/lib/
