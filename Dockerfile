# The image of Chancery: one program, no shell, no root.
#
#   docker build -t chancery .
#
# tests/image/build builds it on a machine without registry and daemon.

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# What was fetched and built before is kept between builds, but not in a layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin chancery \
 && install -D -m 0755 target/release/chancery /out/usr/local/bin/chancery

# glibc, libgcc and the certificates of public authorities; nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="chancery" \
      org.opencontainers.image.description="Identity as Kubernetes resources: signing keys, client credentials, and an OAuth 2.0 token endpoint" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/ /
# As a number, so that a kubelet sees that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/chancery"]
