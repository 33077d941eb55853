#!/usr/bin/env bash
# Tests Weir in a real Kubernetes cluster of two nodes, without a container engine. Weir is installed as documented,
# with Envoy Gateway, and stays under load during all disruptions. Arguments are names of tests.
. "$(dirname "$0")/cluster/programs.sh"
[ -n "${WEIR_WASM:-}" ] && [ -n "${WEIR_ADAPTER:-}" ] || bash scripts/build.sh
export WEIR_WASM="${WEIR_WASM:-$PWD/dist/weir.wasm}" WEIR_ADAPTER="${WEIR_ADAPTER:-$PWD/dist/limitador-adapter}"
need_cluster
need_envoy_gateway_chart
cargo build -p e2e --bin llm-simulator --locked --target-dir "$target"
export WEIR_LLM_SIMULATOR="$(realpath "$target")/debug/llm-simulator" WEIR_CLUSTER_IMAGES="envoy gateway redis llm"
export WEIR_ENVOY_GATEWAY_CHART="$charts"
test=(cargo test -p e2e --features cluster --test cluster --locked --target-dir "$target")
"${test[@]}" --no-run

say "Kubernetes $kubernetes_pin, Envoy Gateway $envoy_gateway_pin and $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
bash scripts/cluster.sh "${test[@]}" --offline -- --nocapture --test-threads=1 "$@"
