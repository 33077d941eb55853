#!/usr/bin/env bash
# Kills the adapter, the database and Envoy many times in random order, and checks that each exchange has one usage
# record with the number of its counter. SEED repeats a run.
. "$(dirname "$0")/tools.sh"
bash scripts/build.sh
need_envoy
need_redis
need_postgres
export KILLS="${KILLS:-200}"
WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  cargo test -p e2e --test usage_kills --locked --target-dir "$target" -- --nocapture
