#!/usr/bin/env bash
# Runs the tests that need a cluster, with a real kube-apiserver and etcd on this machine, and a real Envoy.
. "$(dirname "$0")/kubernetes.sh"
bash scripts/build.sh
need_envoy
need_kubernetes
bash scripts/chart.sh check
need_helm

say "against Kubernetes $kubernetes_pin"
WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  cargo test -p e2e --features kubernetes --test kubernetes --locked --target-dir "$target" -- --test-threads=2
