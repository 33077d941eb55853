#!/usr/bin/env bash
# Counts the WebAssembly instructions that the filter executes per request. WEIR_WASM=PATH counts those of a module that is
# already built, and BENCH_BEFORE=PATH adds another module to the table.
. "$(dirname "$0")/tools.sh"
module="${WEIR_WASM:-}"
if [ -z "$module" ]; then
  need_cargo
  cargo_wasm build -p filter --profile wasm --locked
  module="$target/$wasm_target/wasm/filter.wasm"
fi
need_venv wasmtime scripts/wasmtime.txt
"$venv/bin/python" bench/instructions.py "$module" ${BENCH_BEFORE:+"$BENCH_BEFORE"}
