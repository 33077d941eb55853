#!/usr/bin/env bash
# up: a kind cluster with Envoy Gateway, Weir and an LLM simulator. test: the announced policy, through the gateway.
# down: its end. Needs docker, kind and kubectl. Everything it applies is what make test-k8s applies, too.
. "$(dirname "$0")/kubernetes.sh"
name=weir
system=weir-system

need_kind() {
  for program in docker kind kubectl openssl curl; do
    command -v "$program" >/dev/null || die "$program is missing"
  done
}

# An authority, the adapter's certificate and the proxies'.
certificates() {
  local work
  work="$(mktemp -d)"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=weir \
    -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
  for who in limitador-adapter weir-proxy; do
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" \
      -keyout "$work/$who.key" -out "$work/$who.csr" 2>/dev/null
    openssl x509 -req -in "$work/$who.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 365 \
      -extfile <(echo "subjectAltName=DNS:$who.$system.svc") -out "$work/$who.crt" 2>/dev/null
  done
  secret "$system" limitador-adapter-tls "$work/limitador-adapter" "$work"
  secret envoy-gateway-system weir-proxy-tls "$work/weir-proxy" "$work"
  rm -rf "$work"
}

secret() {
  kubectl -n "$1" create secret generic "$2" --dry-run=client -o yaml \
    --from-file=tls.crt="$3.crt" --from-file=tls.key="$3.key" --from-file=ca.crt="$4/ca.crt" | kubectl apply -f -
}

up() {
  need_kind
  kind create cluster --name "$name"
  kubectl apply --server-side -f "https://github.com/envoyproxy/gateway/releases/download/v$envoy_gateway_pin/install.yaml"
  kubectl -n envoy-gateway-system get configmap envoy-gateway-config -o yaml |
    sed 's/extensionApis: {}/extensionApis: {enableEnvoyPatchPolicy: true}/' | kubectl apply -f -
  kubectl -n envoy-gateway-system rollout restart deployment/envoy-gateway
  docker build --target adapter -t weir/limitador-adapter:latest .
  kind load docker-image --name "$name" weir/limitador-adapter:latest
  kubectl apply -f manifests/adapter/namespace.yaml
  certificates
  kubectl apply --server-side -k manifests/overlays/redis
  kubectl apply --server-side -f manifests/crds/kuadrant
  kubectl -n "$system" patch deployment limitador-adapter --type=json \
    -p '[{"op":"add","path":"/spec/template/spec/containers/0/imagePullPolicy","value":"Never"}]'
  kubectl -n "$system" rollout status deployment/limitador-adapter --timeout=180s
  kubectl apply -f manifests/kind
  # The module's digest, as the adapter that was just built serves it.
  kubectl -n "$system" port-forward service/limitador-adapter 18080:8080 >/dev/null &
  forward=$!
  digest="$(curl -sS --retry 20 --retry-connrefused http://127.0.0.1:18080/weir.wasm.sha256)"
  kill "$forward"
  sed "s/0\{64\}/$digest/; s/name: llm-gateway/name: api-gateway/" manifests/envoy-gateway/envoyextensionpolicy.yaml | kubectl apply -f -
}

run_test() {
  local service forward codes
  kubectl apply -f examples/kuadrant/policy.yaml
  kubectl wait --for=condition=Accepted --timeout=60s tokenratelimitpolicies.kuadrant.io/llm-token-limits
  kubectl wait --for=condition=Enforced --timeout=180s tokenratelimitpolicies.kuadrant.io/llm-token-limits
  service="$(kubectl -n envoy-gateway-system get service -o name -l gateway.envoyproxy.io/owning-gateway-name=api-gateway)"
  kubectl -n envoy-gateway-system port-forward "$service" 18000:80 >/dev/null &
  forward=$!
  trap 'kill $forward' EXIT
  # More than alice's 20,000 tokens, at 15,000 a request.
  codes="$(for _ in 1 2 3; do
    curl -sS -o /dev/null -w '%{http_code} ' --retry 20 --retry-connrefused http://127.0.0.1:18000/v1/chat/completions \
      -H "authorization: Bearer $(cat examples/people/alice.jwt)" -H 'content-type: application/json' \
      -d '{"model": "simulated", "max_tokens": 15000, "messages": [{"role": "user", "content": "Hi"}]}'
  done)"
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
