#!/usr/bin/env bash
# Tests the dashboard and the alerts of manifests/monitoring with a real Prometheus that scrapes a real Envoy and adapter.
# FAULT=NAME selects the tests with this text in their names.
. "$(dirname "$0")/tools.sh"

if [ -z "${WEIR_WASM:-}" ] || [ -z "${WEIR_ADAPTER:-}" ]; then
  bash scripts/build.sh
fi
need_envoy
need_redis
need_postgres
need_prometheus

say "dashboards and alerts, with $("$WEIR_PROMETHEUS/prometheus" --version 2>&1 | head -n 1 | cut -d' ' -f1-3)"
WEIR_WASM="${WEIR_WASM:-$PWD/dist/weir.wasm}" WEIR_ADAPTER="${WEIR_ADAPTER:-$PWD/dist/limitador-adapter}" \
  cargo test -p e2e --features monitoring --locked --target-dir "$target" --test monitoring -- --test-threads 2 ${FAULT:+"$FAULT"}
