#!/usr/bin/env bash
# Kills the adapter, Redis and Envoy at random times while clients send requests, and checks that the counters equal the
# usage that the clients were told. KILLS is the number of kills (500) for each storage, SQLite and Redis, without leases
# and with them. SEED repeats the choices of a run.
. "$(dirname "$0")/tools.sh"
need_redis
bash scripts/build.sh
need_envoy

say "chaos, through $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
export KILLS="${KILLS:-500}"
WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  cargo test -p e2e --test chaos --locked --target-dir "$target" -- --nocapture --include-ignored
