#!/usr/bin/env bash
# Checks formatting and lints, and things that a compiler does not check, such as the purity of the core and machine
# paths in committed files.
. "$(dirname "$0")/tools.sh"
need_lints

say "formatting"
cargo fmt --all --check

say "lints"
cargo clippy --workspace --exclude fuzz --all-targets --features e2e/kubernetes,e2e/envoy-gateway,e2e/istio,e2e/outages,e2e/storm,e2e/clients,e2e/cluster,e2e/page,e2e/monitoring --locked --target-dir "$target" -- -D warnings

# `make demo` builds the adapter with the fewest features.
cargo clippy -p limitador-adapter --no-default-features --locked --target-dir "$target" -- -D warnings
cargo check -p fuzz --locked --target-dir "$target"

# The core only makes decisions. No crate under crates/ uses a runtime, a network, a clock or a host.
say "purity of the core"
impure='^(tokio.*|async-.*|smol|futures-(executor|io)|mio|socket2|hyper.*|h2|tonic.*|tower.*|axum.*|reqwest|ureq|http|rustls.*|native-tls|openssl.*|kube.*|k8s-.*|limitador.*|redis|proxy-wasm|getrandom|rand|iana-time-zone|js-sys|web-sys|web-time|wasm-bindgen.*|wasi|instant|notify|walkdir|tempfile|env_logger|tracing.*|metrics.*|clap.*)$'
for crate in crates/*; do
  tree="$(cargo tree -p "$(basename "$crate")" -e normal --target "$wasm_target" --prefix none --format '{p}' --locked)"
  found="$(cut -d' ' -f1 <<<"$tree" | sort -u | grep -E "$impure" || true)"
  [ -z "$found" ] || die "$crate is pure, but depends on: $(tr '\n' ' ' <<<"$found")"
done
found="$(find crates/*/src -name '*.rs' ! -name 'tests.rs' -print0 | xargs -0 awk '
  FNR == 1 { test = 0 } /^#\[cfg\(test\)\]/ { test = 1 }
  !test && /std::(fs|net|env|process|thread|os)(::|;)|SystemTime|Instant::now|(print(ln)?|dbg)!/ { print FILENAME ":" FNR ": " $0 }')"
[ -z "$found" ] || die "crates/ are pure, but reach the world:
$found"

say "names of types"
python3 scripts/names.py || die "each type has a name of its own, or a reason in scripts/names.txt"

say "links in documents"
python3 scripts/links.py || die "documents name what does not exist"

say "version, and versions that the tests ran"
python3 scripts/version.py check || die "files disagree about the version, which Cargo.toml declares"
python3 scripts/compatibility.py check

say "licences of dependencies"
cargo metadata --format-version 1 --locked | python3 scripts/licences.py || die "deny.toml does not allow these licences"
if command -v cargo-deny >/dev/null && cargo deny fetch db >/dev/null 2>&1; then
  cargo deny check advisories
else
  echo "advisories: NOT checked, since cargo-deny or its database cannot be reached" >&2
fi

say "libraries of the page"
(cd limitador-adapter/src/admin/page/vendor && sha256sum --check --quiet SHA256SUMS) \
  || die "the libraries of the page differ from their checksums: scripts/vendor.sh copies them again"

say "machine paths in committed files"
paths="$(git grep -nIE "(/root|/home/[a-z_][a-z0-9_-]*|/Users/[A-Za-z]+)/|$PWD/" -- . ':!Cargo.lock' ':!scripts/check.sh' || true)"
[ -z "$paths" ] || die "these name one machine's folders:
$paths"

say "the core and the filter for wasm32"
cargo_wasm build -p filter --profile wasm --locked
