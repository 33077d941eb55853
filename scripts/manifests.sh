#!/usr/bin/env bash
# Copies manifests/ to dist/manifests and fills in the digest of dist/weir.wasm, which proxies use to verify the module.
. "$(dirname "$0")/common.sh"
[ -f dist/weir.wasm ] || bash scripts/build.sh
digest="$(sha256sum dist/weir.wasm | cut -d' ' -f1)"
rm -rf dist/manifests
cp -r manifests dist/manifests
grep -rlE '0{64}' dist/manifests | xargs sed -i "s/0\{64\}/$digest/"
say "dist/manifests is for the module $digest"
