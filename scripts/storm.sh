#!/usr/bin/env bash
# Load-tests a real Envoy with two workers for WEIR_STORM_SECONDS (60), with honest requests, and with requests and
# responses that are designed to consume memory. Runs only on this machine.
. "$(dirname "$0")/tools.sh"
bash scripts/build.sh
need_envoy

say "a storm, through $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  cargo test -p e2e --features storm --test storm --locked --target-dir "$target" -- --nocapture
