#!/usr/bin/env bash
# images.sh OUT IMAGE...: packs programs on this machine into images OUT/IMAGE.tar, with the names that the manifests
# use. They replace images from a registry. An IMAGE is pause, coredns, envoy, gateway, redis, llm, or adapter, which is
# followed by its NAME.
. "$(dirname "$0")/programs.sh"
out="$1"
shift
work="$(mktemp -d "$out/image.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work"

# Creates the contents of gcr.io/distroless/cc: the C library, CA certificates, and the users root, nobody and nonroot.
base() {
  mkdir -p root/tmp root/etc/ssl/certs root/home/nonroot root/usr/local/bin
  chmod 1777 root/tmp
  cp -L /etc/ssl/certs/ca-certificates.crt root/etc/ssl/certs/
  printf '%s\n' root:x:0:0::/root:/sbin/nologin nobody:x:65534:65534::/nonexistent:/sbin/nologin \
    nonroot:x:65532:65532::/home/nonroot:/sbin/nologin redis:x:999:999::/data:/sbin/nologin >root/etc/passwd
  printf '%s\n' root:x:0: nobody:x:65534: nonroot:x:65532: redis:x:999: >root/etc/group
  echo 'hosts: files dns' >root/etc/nsswitch.conf
}

# program FILE PLACE: copies a program with its shared libraries, and the libraries that resolve names.
program() {
  local library
  mkdir -p "root$(dirname "$2")"
  cp -L "$1" "root$2"
  { ldd "$1" 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' || true; find /lib/*-linux-gnu -maxdepth 1 -name 'libnss_dns.so.2' -o -maxdepth 1 -name 'libnss_files.so.2'; } |
    sort -u | while read -r library; do
      mkdir -p "root$(dirname "$library")"
      cp -L "$library" "root$library"
    done
}

image() { python3 "$OLDPWD/scripts/cluster/image.py" "$out/$1.tar" "$2" root --config "$3"; }

pause() {
  mkdir root
  cp -L "$(command -v busybox)" root/busybox
  image pause registry.k8s.io/pause:3.10 '{"Entrypoint": ["/busybox", "sleep", "2147483647"], "User": "65535:65535"}'
}

coredns() {
  mkdir root
  cp "$coredns" root/coredns
  image coredns "docker.io/coredns/coredns:$coredns_pin" '{"Entrypoint": ["/coredns"], "User": "65532:65532"}'
}

# If a name has both a tag and a digest, the container runtime uses only the digest.
envoy() {
  base
  program "$WEIR_ENVOY" /usr/local/bin/envoy
  image envoy "$(sed -n 's/.*DefaultEnvoyProxyImage *= *"\(.*\)"/\1/p' "$(module_folder "github.com/envoyproxy/gateway@v$envoy_gateway_pin")"/api/v1alpha1/shared_types.go | sed 's/:[^:@]*@/@/')" \
    '{"Entrypoint": ["/usr/local/bin/envoy"], "User": "65532:65532"}'
}

gateway() {
  base
  program "$cache/envoy-gateway-server-$envoy_gateway_pin/envoy-gateway" /usr/local/bin/envoy-gateway
  mkdir -p root/var/lib/eg
  chmod 777 root/var/lib root/var/lib/eg
  image gateway "docker.io/envoyproxy/gateway:v$envoy_gateway_pin" '{"Entrypoint": ["/usr/local/bin/envoy-gateway"], "User": "65532:65532"}'
}

# Like the official image, this starts Redis without protected mode, because the cluster controls access.
redis() {
  local server
  server="$(readlink -f "$(command -v redis-check-rdb)")"
  base
  mkdir -p root/data root/bin
  program "$server" /usr/local/bin/redis-server
  program "$(command -v redis-cli)" /usr/local/bin/redis-cli
  cp -L "$(command -v busybox)" root/bin/sh
  printf '#!/bin/sh\nexec redis-server --protected-mode no "$@"\n' >root/usr/local/bin/docker-entrypoint.sh
  chmod 755 root/usr/local/bin/docker-entrypoint.sh
  image redis docker.io/library/redis:7.4-alpine '{"Entrypoint": ["docker-entrypoint.sh"], "WorkingDir": "/data"}'
}

# Packs an LLM simulator under the name in manifests/kind/llm.yaml.
llm() {
  base
  program "$WEIR_LLM_SIMULATOR" /llm-simulator
  image llm "$(sed -n 's/.*image: //p' "$OLDPWD/manifests/kind/llm.yaml")" \
    '{"Entrypoint": ["/llm-simulator"], "Env": ["WEIR_LLM_LISTEN=0.0.0.0:8000"], "User": "65532:65532"}'
}

# Same as the stage `adapter` of the Dockerfile. WEIR_WASM_PREVIOUS names the previous version of the module.
adapter() {
  base
  program "$WEIR_ADAPTER" /limitador-adapter
  cp "$WEIR_WASM" root/weir.wasm
  mkdir root/previous
  cp "${WEIR_WASM_PREVIOUS:-$WEIR_WASM}" root/previous/plugin.wasm
  image "adapter-${1##*:}" "$1" '{"Entrypoint": ["/limitador-adapter"], "Cmd": ["serve"], "User": "65532:65532", "Env": ["WEIR_WASM_PREVIOUS=/previous"]}'
}

while [ $# -gt 0 ]; do
  rm -rf root
  case "$1" in
    adapter) adapter "$2"; shift ;;
    pause | coredns | envoy | gateway | redis | llm) "$1" ;;
    *) die "images.sh makes no image $1" ;;
  esac
  shift
done
