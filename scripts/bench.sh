#!/usr/bin/env bash
# Compares Weir with Envoy's own filters and bare Wasm filters. BENCH_ROUNDS=8 sets the number of rounds,
# BENCH_CASES='one limit;empty' selects cases, BENCH_CASES='JSON;chunks' selects the responses, and BENCH_BEFORE=PATH
# adds another module to the same rounds.
. "$(dirname "$0")/tools.sh"
bash scripts/build.sh
need_envoy

say "building the bench and its filters"
cargo_wasm build -p empty-filter -p floor-filter --profile wasm --locked
mkdir -p dist/bench
cp "$target/$wasm_target"/wasm/{empty,floor}_filter.wasm dist/bench/
cargo build -p bench --release --locked --target-dir "$target"

say "measuring (a minute per round; a quiet machine gives steadier numbers)"
BENCH_DATE="$(date -u +%F)" WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  "$target/release/bench"

say "measuring what counting costs"
need_redis
BENCH_DATE="$(date -u +%F)" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  cargo bench -p limitador-adapter --bench ledger --locked --target-dir "$target"
