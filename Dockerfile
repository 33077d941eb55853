# docker build --target filter -t weir/filter .              the module alone
# docker build --target adapter -t REGISTRY/limitador-adapter .  the adapter, which serves the module, too
#
# For an upgrade, --build-arg PREVIOUS=weir/filter:TAG names the version in use: the adapter serves its module as well.
ARG PREVIOUS=filter
FROM rust:1.95-bookworm AS build
RUN rustup target add wasm32-unknown-unknown
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build -p filter --profile wasm --locked --target wasm32-unknown-unknown \
 && cargo build -p limitador-adapter --release --locked \
 && mkdir -p /out/data \
 && cp target/wasm32-unknown-unknown/wasm/filter.wasm /out/weir.wasm \
 && cp target/release/limitador-adapter /out/

FROM scratch AS filter
COPY --from=build /out/weir.wasm /plugin.wasm

FROM ${PREVIOUS} AS previous

FROM gcr.io/distroless/cc-debian12:nonroot AS adapter
COPY --from=build /out/limitador-adapter /limitador-adapter
COPY --from=build /out/weir.wasm /weir.wasm
COPY --from=previous /plugin.wasm /previous/plugin.wasm
# Counters. Mount a volume here, so that they survive the end of the container.
COPY --from=build --chown=65532:65532 /out/data /data
VOLUME /data
ENV WEIR_WASM_PREVIOUS=/previous WEIR_STORAGE=sqlite:/data/counters.db
ENTRYPOINT ["/limitador-adapter"]
CMD ["serve"]
