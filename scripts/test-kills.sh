#!/usr/bin/env bash
# Kills an adapter under load that keeps its counters in a file, 1000 times, and checks that each exchange is charged
# once. Then kills the adapter, the database and Envoy 200 times in random order, and checks that each exchange has one
# usage record with the number of its counter. KILLS sets both numbers, and SEED repeats a run.
. "$(dirname "$0")/tools.sh"
need_redis
need_postgres
KILLS="${KILLS:-1000}" cargo test -p limitador-adapter --test all sqlite_kills --locked --target-dir "$target" -- --nocapture
bash scripts/build.sh
need_envoy
export KILLS="${KILLS:-200}"
WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  cargo test -p e2e --test usage_kills --locked --target-dir "$target" -- --nocapture
