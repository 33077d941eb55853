#!/usr/bin/env bash
# Writes dist/manifests: manifests/ with the digest of dist/weir.wasm, which proxies check the module against.
. "$(dirname "$0")/common.sh"
[ -f dist/weir.wasm ] || bash scripts/build.sh
digest="$(sha256sum dist/weir.wasm | cut -d' ' -f1)"
rm -rf dist/manifests
cp -r manifests dist/manifests
grep -rlE '0{64}' dist/manifests | xargs sed -i "s/0\{64\}/$digest/"
say "dist/manifests is for the module $digest"
