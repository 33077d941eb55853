#!/usr/bin/env bash
# Builds dist/weir.wasm, for Envoy, and dist/limitador-adapter, for this machine.
. "$(dirname "$0")/tools.sh"
need_cargo

# Writes each file under another name first, because a running program's file cannot be overwritten, and other programs
# must not see a partial file.
place() {
  mkdir -p dist
  cp "$1" "dist/.$2"
  mv -f "dist/.$2" "dist/$2"
}

say "building dist/weir.wasm"
cargo_wasm build -p filter --profile wasm --locked
place "$target/$wasm_target/wasm/filter.wasm" weir.wasm

say "building dist/limitador-adapter"
cargo build -p limitador-adapter --release --locked --target-dir "$target"
place "$target/release/limitador-adapter" limitador-adapter
ls -l dist >&2
