#!/usr/bin/env bash
# Tests outages of two minutes with each gateway: Redis, the adapter, one of its nodes, and the API server.
# WEIR_OUTAGE_SECONDS=600 makes them longer. Arguments select from envoy, istio and envoy-gateway.
. "$(dirname "$0")/kubernetes.sh"
export WEIR_OUTAGE_SECONDS="${WEIR_OUTAGE_SECONDS:-120}"
[ $# -gt 0 ] || set -- envoy istio envoy-gateway
bash scripts/build.sh
need_envoy
need_redis
need_kubernetes
need ip iproute2
need nft nftables
export WEIR_WASM="$PWD/dist/weir.wasm" WEIR_ADAPTER="$PWD/dist/limitador-adapter"
for gateway; do
  case "$gateway" in
    envoy)
      test=(cargo test -p e2e --features outages --test outages --locked --target-dir "$target")
      "${test[@]}" --no-run
      say "a plain Envoy"
      bash scripts/alone.sh -- "${test[@]}" --offline -- --nocapture --test-threads=4
      ;;
    istio) bash scripts/test-istio.sh outage ;;
    envoy-gateway) bash scripts/test-envoy-gateway.sh outage ;;
    *) die "$gateway is none of envoy, istio and envoy-gateway" ;;
  esac
done
