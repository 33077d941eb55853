#!/usr/bin/env bash
# Tests Istio's own control plane with a real API server. Istio's agent runs a real Envoy as the proxy, with our
# manifests.
. "$(dirname "$0")/kubernetes.sh"
bash scripts/build.sh
need_envoy
need_kubernetes
need_istio
need ip iproute2
need nft nftables
export WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter"
test=(cargo test -p e2e --features istio --test istio --locked --target-dir "$target")
"${test[@]}" --no-run

say "Istio ${istio_server_pin##*-}, with Kubernetes $kubernetes_pin and $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
bash scripts/alone.sh 10.0.0.20=limitador-adapter.weir-system.svc.cluster.local 192.0.2.1=proxy \
  192.0.2.2=istiod.istio-system.svc,istiod.istio-system.svc.cluster.local 10.0.0.10=istiod-service -- \
  "${test[@]}" --offline -- --test-threads=1 "$@"
