#!/usr/bin/env bash
# Runs LLM clients from PyPI and npm through a real Envoy. CLIENTS=NAME selects the clients with this text in their
# names.
. "$(dirname "$0")/tools.sh"

bash scripts/build.sh
need_envoy

# installed NAME FILE COMMAND...: creates a folder in the cache for the packages that the file pins. The command
# receives a folder to fill.
installed() {
  local name="$1" file="$2" place work
  shift 2
  place="$cache/clients-$name-$(sha256sum "$file" | cut -c1-16)"
  if [ ! -d "$place" ]; then
    say "installing the clients of $file"
    mkdir -p "$cache"
    work="$(mktemp -d "$cache/clients.XXXXXX")"
    quietly "$@" "$work" || die "the clients of $file could not be installed"
    mv "$work" "$place"
  fi
  echo "$place"
}

install_python() {
  # A virtual environment cannot be moved, but its packages can be found by any Python of the same version.
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip python3-venv
  python3 -m pip install --disable-pip-version-check --no-deps --target "$1" -r e2e/clients/python/requirements.txt
}

install_node() {
  cp "$1/package.json" "$1/package-lock.json" "$2"
  npm ci --prefix "$2" --no-audit --no-fund
}

need_node
WEIR_CLIENTS_PYTHON="$(installed "python-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" \
  e2e/clients/python/requirements.txt install_python)"
WEIR_CLIENTS_NODE="$(installed node e2e/clients/node/package-lock.json install_node e2e/clients/node)"
WEIR_CLIENTS_AGENTS="$(installed agents e2e/clients/agents/package-lock.json install_node e2e/clients/agents)"
# Node searches for packages in the program's folder.
rm -rf "$WEIR_CLIENTS_NODE/sdk"
cp -R e2e/clients/node/run.mjs e2e/clients/node/sdk "$WEIR_CLIENTS_NODE"
export WEIR_CLIENTS_PYTHON WEIR_CLIENTS_NODE WEIR_CLIENTS_AGENTS

say "clients, through $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
WEIR_WASM="${WEIR_WASM:-$PWD/dist/weir.wasm}" WEIR_ADAPTER="${WEIR_ADAPTER:-$PWD/dist/limitador-adapter}" \
  cargo test -p e2e --features clients --locked --target-dir "$target" --test clients -- ${CLIENTS:+"$CLIENTS"}
