#!/usr/bin/env bash
# Envoy Gateway's own control plane, against a real API server, with a real Envoy as its proxy. Its ports and folders are
# fixed, and names of a cluster have to be found: so all of it runs in a network and a file system of its own.
. "$(dirname "$0")/kubernetes.sh"
names=(envoy-gateway.envoy-gateway-system limitador-adapter.weir-system)

# The same files at the same places, but for those of a cluster; no network but this machine's.
alone() {
  local root=/mnt entry name
  mount -t tmpfs none "$root"
  for entry in /*; do
    if [ -L "$entry" ]; then
      cp -P "$entry" "$root"
    elif [ -d "$entry" ] && [[ ! "$entry" =~ ^/(mnt|etc|var|certs|config|sds|lost\+found)$ ]]; then
      mkdir "$root$entry"
      mount --rbind "$entry" "$root$entry"
    fi
  done
  mkdir -p "$root"/etc "$root"/var/tmp
  cp /etc/passwd /etc/group "$root/etc/"
  echo 'hosts: files' >"$root/etc/nsswitch.conf"
  echo 127.0.0.1 localhost >"$root/etc/hosts"
  # With the last dot as well, which resolvers do not all take away.
  for name in "${names[@]}"; do
    echo "127.0.0.1 $name.svc.cluster.local $name.svc.cluster.local." >>"$root/etc/hosts"
  done
  ip link set lo up
  ip address add 192.0.2.1/32 dev lo
  exec chroot "$root" env -C "$PWD" WEIR_ALONE=true "$@"
}

if [ "${1:-}" = alone ]; then
  shift
  alone "$@"
fi

bash scripts/build.sh
need_envoy
need_kubernetes
need_envoy_gateway
need ip iproute2
export WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter"
test=(cargo test -p e2e --features envoy-gateway --test envoy_gateway --locked --target-dir "$target")
"${test[@]}" --no-run

say "Envoy Gateway $envoy_gateway_pin, with Kubernetes $kubernetes_pin and $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
isolated=(unshare --user --map-root-user --net --mount)
"${isolated[@]}" true || die "this needs namespaces of its own, which this machine does not allow (unshare --user --net --mount)"
"${isolated[@]}" bash "$PWD/scripts/test-envoy-gateway.sh" alone "${test[@]}" --offline -- --nocapture
