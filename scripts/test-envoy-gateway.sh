#!/usr/bin/env bash
# Tests Envoy Gateway's own control plane with a real API server and a real Envoy as its proxy.
. "$(dirname "$0")/kubernetes.sh"
bash scripts/build.sh
need_envoy
need_kubernetes
need_envoy_gateway
need ip iproute2
need nft nftables
export WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter"
test=(cargo test -p e2e --features envoy-gateway --test envoy_gateway --locked --target-dir "$target")
"${test[@]}" --no-run

say "Envoy Gateway $envoy_gateway_pin, with Kubernetes $kubernetes_pin and $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
bash scripts/alone.sh 192.0.2.3=envoy-gateway.envoy-gateway-system.svc.cluster.local 10.0.0.20=limitador-adapter.weir-system.svc.cluster.local \
  192.0.2.1=proxy -- "${test[@]}" --offline -- --test-threads=1 "$@"
