# syntax=docker/dockerfile:1.7
# paystream: one binary, all services. Build with BuildKit: docker build -t paystream .

# The same Debian as below, so that the binary finds the glibc it was linked with.
FROM rust:1.95.0-slim-bookworm AS build
# librdkafka is built by its own configure script; OpenSSL for TLS to Kafka (kafka-tls) needs perl.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Crates and what was compiled stay in caches between builds: a change to our code does not build the
# dependencies again. The caches are no part of any layer, so the binary is copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/usr/local/cargo/git,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --profile dist --locked -p paystream --features kafka-tls \
    && install -D -m 0755 target/dist/paystream /out/usr/local/bin/paystream \
    && install -d -m 0700 /out/var/lib/paystream

# Debian and not distroless: its tags are dated by release, and so can be pinned by name. Nothing is
# installed on top: certificates come from the build.
FROM debian:12.15-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="paystream" \
      org.opencontainers.image.description="Card-payment fraud decisions: gateway, fraud-analyzer, alerter, analytics" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="docker.io/library/debian:12.15-slim"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A new volume on this folder takes over its owner.
COPY --from=build --chown=10001:10001 /out/var/lib/paystream /var/lib/paystream
COPY --from=build /out/usr/local/bin/paystream /usr/local/bin/paystream
# By number: orchestrators check "not root" without reading the image's passwd.
USER 10001:10001
WORKDIR /var/lib/paystream
VOLUME /var/lib/paystream
ENV PAYSTREAM__SERVER__DATA_DIR=/var/lib/paystream \
    NO_COLOR=1
EXPOSE 8080 8081 8082 8083 9100
# SIGTERM finishes what was accepted; the binary is PID 1, handles signals itself and starts no children.
STOPSIGNAL SIGTERM
# The binary asks itself: there is no curl here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["paystream", "healthcheck"]
ENTRYPOINT ["paystream"]
CMD ["--help"]
