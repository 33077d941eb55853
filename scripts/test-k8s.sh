#!/usr/bin/env bash
# What needs a cluster, against a real kube-apiserver and etcd on this machine, with a real Envoy.
. "$(dirname "$0")/kubernetes.sh"
bash scripts/build.sh
need_envoy
need_kubernetes
bash scripts/chart.sh check
need_helm

say "against Kubernetes $kubernetes_pin"
WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter" \
  cargo test -p e2e --features kubernetes --test kubernetes --locked --target-dir "$target" -- --test-threads=2
