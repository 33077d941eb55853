#!/usr/bin/env bash
# up: creates a kind cluster with Envoy Gateway, or with Istio (WEIR_GATEWAY=istio), Weir and an LLM simulator. test:
# checks that the gateway enforces Kuadrant's announced policy. down: deletes the cluster. The script needs docker, kind
# and kubectl, and istioctl for Istio. It applies the same files as make test-k8s and make test-envoy-gateway.
. "$(dirname "$0")/kubernetes.sh"
name=weir
system=weir-system
gateway="${WEIR_GATEWAY:-envoy-gateway}"
case "$gateway" in
  envoy-gateway) proxies=envoy-gateway-system label=gateway.envoyproxy.io/owning-gateway-name ;;
  istio) proxies=default label=gateway.networking.k8s.io/gateway-name ;;
  *) die "WEIR_GATEWAY is neither envoy-gateway nor istio" ;;
esac

need_programs() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || die "$program is missing"
  done
}

install_gateway() {
  local releases=https://github.com
  if [ "$gateway" = istio ]; then
    kubectl apply --server-side -f "$releases/kubernetes-sigs/gateway-api/releases/download/v$gateway_api_pin/standard-install.yaml"
    istioctl install -y --set profile=minimal
    return
  fi
  kubectl apply --server-side -f "$releases/envoyproxy/gateway/releases/download/v$envoy_gateway_pin/install.yaml"
  kubectl -n envoy-gateway-system get configmap envoy-gateway-config -o yaml |
    sed 's/extensionApis: {}/extensionApis: {enableEnvoyPatchPolicy: true, enableLua: true}/' | kubectl apply -f -
  kubectl -n envoy-gateway-system rollout restart deployment/envoy-gateway
}

up() {
  need_programs docker kind kubectl openssl curl
  [ "$gateway" != istio ] || need_programs istioctl
  kind create cluster --name "$name"
  install_gateway
  docker build --target adapter -t registry.example.com/limitador-adapter:0.1.0 .
  kind load docker-image --name "$name" registry.example.com/limitador-adapter:0.1.0
  kubectl apply -f manifests/adapter/namespace.yaml
  bash scripts/certificates.sh "$proxies"
  kubectl apply --server-side -k manifests/overlays/redis
  kubectl apply --server-side -f manifests/crds/kuadrant
  kubectl -n "$system" patch deployment limitador-adapter --type=json \
    -p '[{"op":"add","path":"/spec/template/spec/containers/0/imagePullPolicy","value":"Never"}]'
  kubectl -n "$system" rollout status deployment/limitador-adapter --timeout=180s
  kubectl apply -f manifests/kind -f "manifests/kind/$gateway"
  # The module's digest, as served by the adapter that was just built.
  kubectl -n "$system" port-forward service/limitador-adapter 18080:8080 >/dev/null &
  forward=$!
  digest="$(curl -sS --retry 20 --retry-connrefused http://127.0.0.1:18080/weir.wasm.sha256)"
  kill "$forward"
  case "$gateway" in
    envoy-gateway) filter=manifests/envoy-gateway/envoyextensionpolicy.yaml ;;
    istio) filter=manifests/istio/envoyfilter.yaml ;;
  esac
  sed "s/0\{64\}/$digest/; s/llm-gateway/api-gateway/g" "$filter" | kubectl apply -f -
}

run_test() {
  local service codes
  kubectl apply -f examples/kuadrant/policy.yaml
  kubectl wait --for=condition=Accepted --timeout=60s tokenratelimitpolicies.kuadrant.io/llm-token-limits
  kubectl wait --for=condition=Enforced --timeout=180s tokenratelimitpolicies.kuadrant.io/llm-token-limits
  kubectl rollout status deployment/llm --timeout=180s
  service="$(kubectl -n "$proxies" get service -o name -l "$label=api-gateway")"
  kubectl -n "$proxies" port-forward "$service" 18000:80 >/dev/null &
  forward=$!
  trap 'kill $forward' EXIT
  until curl -s -o /dev/null http://127.0.0.1:18000/; do sleep 1; done
  # Sends requests until alice's 20,000 tokens are used up. Does not use --retry, because curl would wait for the retry
  # time of a 429.
  codes=
  while [[ "$codes" != *429* ]] && [ "${#codes}" -lt 2000 ]; do
    codes+="$(curl -sS -o /dev/null -w '%{http_code} ' http://127.0.0.1:18000/v1/chat/completions \
      -H "authorization: Bearer $(cat examples/people/alice.jwt)" -H 'content-type: application/json' \
      -d '{"model": "simulated", "max_tokens": 15000, "messages": [{"role": "user", "content": "Hi"}]}')"
  done
  case "$codes" in
    200*429*) say "alice: $codes" ;;
    *) die "alice was answered $codes" ;;
  esac
}

case "${1:-}" in
  up) up ;;
  test) run_test ;;
  down) kind delete cluster --name "$name" ;;
  *) die "kind.sh up|test|down" ;;
esac
