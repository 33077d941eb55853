# Sourced by every script here: strict mode, paths, and messages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Downloads and tools are stored outside the clone, and their names include the version.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/weir"
target="${CARGO_TARGET_DIR:-target}"

say() { printf '\n\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf '\nweir: %s\n' "$*" >&2; exit 1; }

# Runs a command quietly. Prints its output only if it fails.
quietly() {
  local log
  log="$(mktemp)"
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}
