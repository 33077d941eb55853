#!/usr/bin/env bash
# Outages of two minutes, all at once. make test-istio and make test-envoy-gateway have those of their gateways.
. "$(dirname "$0")/kubernetes.sh"
bash scripts/build.sh
need_envoy
need_redis
need_kubernetes
export WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter"
cargo test -p e2e --features outages --test outages --locked --target-dir "$target" -- --nocapture --test-threads=5
