#!/usr/bin/env bash
# Runs the tests of the counters with Valkey in place of Redis: the one that WEIR_VALKEY names, or Debian's.
. "$(dirname "$0")/tools.sh"
. scripts/debian.sh

need_valkey() {
  local place work
  WEIR_VALKEY="${WEIR_VALKEY:-$cache/valkey/valkey-server}"
  [ ! -x "$WEIR_VALKEY" ] || return 0
  command -v apt-get >/dev/null || die "WEIR_VALKEY=PROGRAM names a Valkey (no apt-get here)"
  need redis-check-rdb redis-tools # Has the same libraries.
  say "downloading Debian's Valkey"
  place="$(dirname "$WEIR_VALKEY")"
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/valkey.XXXXXX")"
  download_packages "$work" "$(dpkg --print-architecture)" bookworm-backports valkey-tools/bookworm-backports
  dpkg-deb --extract "$work"/valkey-tools_*.deb "$work/package"
  # Like redis-tools, the package contains the server under another name.
  mv "$work/package/usr/bin/valkey-check-rdb" "$work/package/usr/bin/valkey-server"
  "$work/package/usr/bin/valkey-server" --version >/dev/null || die "Debian's Valkey does not run here"
  rm -rf "$place"
  mv "$work/package/usr/bin" "$place"
  rm -rf "$work"
}

need_valkey
need_cargo
export WEIR_REDIS="$WEIR_VALKEY"
say "with $("$WEIR_VALKEY" --version | sed 's/ sha=.*//')"
cargo test -p limitador-adapter --locked --target-dir "$target" --test all --test scenarios
