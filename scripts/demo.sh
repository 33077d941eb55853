#!/usr/bin/env bash
# The main job on this machine; what it shows is in e2e/src/bin/demo.rs.
. "$(dirname "$0")/tools.sh"
bash scripts/build.sh
need_envoy
cargo build -p e2e --bin demo --locked --target-dir "$target"
WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" exec "$target/debug/demo" "$@"
