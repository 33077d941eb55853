#!/usr/bin/env bash
# Runs the checks and tests that need neither a container engine nor a cluster, the fastest ones first.
. "$(dirname "$0")/tools.sh"

bash scripts/check.sh
bash scripts/docs.sh

need_redis
need_postgres
say "tests"
cargo test --workspace --exclude e2e --exclude fuzz --locked --target-dir "$target"

bash scripts/build.sh
need_envoy

say "end to end, through $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  cargo test -p e2e --locked --target-dir "$target"

bash scripts/fuzz.sh
