# One image for all roles: `docker build -t slipstream .`, then `docker run slipstream follower ...`.
#
# Works with BuildKit and with the classic builder, on amd64 and arm64. The classic builder builds every
# stage above the one that is asked for, so those that need no compiler come first:
#
#   docker build .                     compiles; needs BUILD_IMAGE and RUNTIME_IMAGE
#   docker build --target prebuilt .   takes what docker/rootfs.sh laid out in PREBUILT; no compiler
#   docker build --target tools .      what makes certificates and keys for docker-compose.yml
#
# RUNTIME_IMAGE: anything with glibc 2.36 or later and /bin/sh. BUILD_IMAGE: Rust 1.95 with a C compiler,
# and no newer glibc than RUNTIME_IMAGE has.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=busybox:1.37-glibc
ARG TOOLS_IMAGE=debian:trixie-slim

# ---- certificates and keys for docker-compose.yml; no role of the cluster runs in it ----
FROM ${TOOLS_IMAGE} AS tools
RUN command -v openssl >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends openssl \
    && rm -rf /var/lib/apt/lists/*; }
COPY docker/secrets.sh /usr/local/bin/slipstream-secrets
CMD ["/usr/local/bin/slipstream-secrets"]

# ---- everything of the image but the program ----
FROM ${RUNTIME_IMAGE} AS node
USER root
# A number, so that Kubernetes can see that it is not root.
RUN mkdir -p /etc /var/lib/slipstream /run/slipstream \
    && echo 'slipstream:x:10001:10001:slipstream:/var/lib/slipstream:/bin/sh' >> /etc/passwd \
    && echo 'slipstream:x:10001:' >> /etc/group \
    && chown 10001:10001 /var/lib/slipstream /run/slipstream
COPY docker/entrypoint.sh /usr/local/bin/slipstream-entrypoint
# Every role listens on the same ports. A node without tokens refuses to listen where others reach it,
# and says so: tokens are mounted, or SLIPSTREAM_INSECURE_LISTEN=true is said.
ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    SLIPSTREAM_DATA_DIR=/var/lib/slipstream \
    SLIPSTREAM_GRPC=0.0.0.0:7410 \
    SLIPSTREAM_HTTP=0.0.0.0:7411 \
    SLIPSTREAM_URL=http://127.0.0.1:7411
WORKDIR /var/lib/slipstream
VOLUME /var/lib/slipstream
EXPOSE 7410 7411
USER 10001:10001
# The program starts no others and handles SIGTERM itself, so it may be process 1; the entrypoint
# replaces itself by it.
STOPSIGNAL SIGTERM
# Asks SLIPSTREAM_URL, trusting SLIPSTREAM_CA.
HEALTHCHECK --interval=5s --timeout=8s --start-period=20s --retries=3 CMD ["slipstream", "health"]
ENTRYPOINT ["/usr/local/bin/slipstream-entrypoint"]
CMD ["--help"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="slipstream" \
      org.opencontainers.image.description="One copy of the data, many query clusters: leader, follower and command line" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/deployment.md" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# ---- the image, from a program that is built already ----
FROM node AS prebuilt
ARG PREBUILT=docker/prebuilt
COPY ${PREBUILT}/ /

# ---- what decides which dependencies are compiled: manifests, and sources without anything in them ----
FROM ${BUILD_IMAGE} AS manifests
WORKDIR /src
COPY . .
RUN sh docker/manifests.sh /manifests

# ---- the dependencies: a layer that stays while no manifest changes ----
FROM ${BUILD_IMAGE} AS dependencies
WORKDIR /src
RUN { [ -e /usr/share/zoneinfo/UTC ] && [ -e /etc/ssl/certs/ca-certificates.crt ]; } \
    || { apt-get update && apt-get install --yes --no-install-recommends ca-certificates tzdata; }
# The linker that comes with Rust, also where it is not the one by default: Debian 12's own is too old to know
# pack-relative-relocs.
RUN ln -s "$(rustc --print sysroot)"/lib/rustlib/*-linux-gnu/bin/gcc-ld /opt/lld
# What makes the program small: as cargo builds a release by default, it is larger than the image may be. These
# take long and much memory; a smaller machine says --build-arg LTO=off --build-arg CODEGEN_UNITS=16.
ARG LTO=fat
ARG CODEGEN_UNITS=1
ARG OPT_LEVEL=2
ARG RUSTFLAGS="-Clink-arg=-B/opt/lld -Clink-arg=-fuse-ld=lld -Clink-arg=-Wl,--icf=all -Clink-arg=-Wl,-z,pack-relative-relocs"
ENV CARGO_PROFILE_RELEASE_LTO=${LTO} \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=${CODEGEN_UNITS} \
    CARGO_PROFILE_RELEASE_OPT_LEVEL=${OPT_LEVEL} \
    RUSTFLAGS="${RUSTFLAGS}"
COPY --from=manifests /manifests ./
RUN cargo build --release --locked

# ---- the program ----
FROM dependencies AS build
COPY . .
# Cargo goes by time, and a source may be older than the empty one that was compiled in its place. The crate that
# stands in for another was compiled as it is.
RUN find crates -name '*.rs' -exec touch {} + \
    && find crates/custom-labels -exec touch -d '2000-01-01 00:00:00' {} + \
    && cargo build --release --locked \
    && sh docker/rootfs.sh target/release/slipstream /rootfs

# ---- the image ----
FROM node AS slipstream
COPY --from=build /rootfs/ /
