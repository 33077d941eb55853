#!/usr/bin/env bash
# Runs the demo on this machine; e2e/src/bin/demo.rs describes it. Everything is built with the profile `demo`, which
# compiles fast. dist/ is not changed.
. "$(dirname "$0")/tools.sh"
need_cargo

# The download waits for the network and the build uses the CPU, so they run at the same time.
(need_envoy) &
envoy=$!

say "1 of 3: building the adapter and the demo (some minutes the first time; cargo shows how far it is)"
cargo build -p limitador-adapter -p e2e --bin limitador-adapter --bin demo --no-default-features --features limitador-adapter/sqlite --profile demo \
  --locked --target-dir "$target"

say "2 of 3: building the filter (about a minute the first time)"
cargo_wasm build -p filter --profile demo --locked

wait "$envoy" || exit 1
need_envoy
say "3 of 3: starting Envoy, which compiles the filter (some ten seconds)"
WEIR_WASM="$target/$wasm_target/demo/filter.wasm" WEIR_ADAPTER="$target/demo/limitador-adapter" exec "$target/demo/demo" "$@"
