# The service's image: one program, its C library, and no more. Everything it is told comes from the environment and from files.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
# The names of functions stay, for a backtrace; its line numbers would be three quarters of the program.
ENV CARGO_PROFILE_RELEASE_DEBUG=none \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo
# What others wrote is compiled in a layer of its own, which changes with the manifests alone.
COPY Cargo.toml Cargo.lock ./
COPY lab/Cargo.toml lab/
RUN mkdir src lab/src \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs lab/src/ \
    && touch src/lib.rs lab/src/lib.rs \
    && cargo build --release --locked --bin coupon-rush
COPY migrations migrations
COPY src src
# The copies may be older than what was just compiled in their place; cargo goes by the time.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin coupon-rush

FROM debian:bookworm-20260824-slim
LABEL org.opencontainers.image.title="coupon-rush" \
      org.opencontainers.image.description="First come, first served coupons that stay exact and fast while a crowd hits them" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /build/target/release/coupon-rush /usr/local/bin/coupon-rush
# A number: it shows, without a look into the image, that this is not root.
USER 65532:65532
# Inside a container loopback would reach nobody.
ENV LISTEN=0.0.0.0:8080 \
    OPS_LISTEN=0.0.0.0:8081
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["coupon-rush"]
CMD ["serve"]
