#!/usr/bin/env bash
# Measures Weir beside Envoy's own filters and bare Wasm filters. BENCH_ROUNDS=8; BENCH_CASES='one limit;empty' for some only, 'JSON;chunks' for the responses,
# BENCH_BEFORE=PATH for another module beside this one in the same rounds.
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
BENCH_DATE="$(date -u +%F)" cargo bench -p limitador-adapter --bench ledger --locked --target-dir "$target"
