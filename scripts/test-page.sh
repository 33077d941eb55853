#!/usr/bin/env bash
# Tests the adapter's page in a real Chromium, with a real Envoy. WEIR_SCREENSHOTS=FOLDER also writes pictures of it.
# PAGE=NAME selects the tests with this text in their names.
. "$(dirname "$0")/tools.sh"

bash scripts/build.sh
need_envoy
need_node
need chromium chromium

modules="$cache/page-$(sha256sum e2e/page/package-lock.json | cut -c1-16)"
if [ ! -d "$modules" ]; then
  say "installing the packages of e2e/page"
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/page.XXXXXX")"
  cp e2e/page/package.json e2e/page/package-lock.json "$work"
  # Playwright drives Debian's Chromium, and downloads none of its own.
  quietly env PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund \
    || die "the packages of e2e/page could not be installed"
  mv "$work" "$modules"
fi
export WEIR_PAGE_MODULES="$modules" WEIR_CHROMIUM="${WEIR_CHROMIUM:-$(command -v chromium)}"
if [ -n "${WEIR_SCREENSHOTS:-}" ]; then
  mkdir -p "$WEIR_SCREENSHOTS"
  WEIR_SCREENSHOTS="$(realpath "$WEIR_SCREENSHOTS")"
  export WEIR_SCREENSHOTS
fi

say "the page, in $("$WEIR_CHROMIUM" --version 2>/dev/null | cut -d' ' -f1,2)"
WEIR_WASM="${WEIR_WASM:-$PWD/dist/weir.wasm}" WEIR_ADAPTER="${WEIR_ADAPTER:-$PWD/dist/limitador-adapter}" \
  cargo test -p e2e --features page --locked --target-dir "$target" --test page -- --test-threads 1 --nocapture ${PAGE:+"$PAGE"}
