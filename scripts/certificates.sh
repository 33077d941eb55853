#!/usr/bin/env bash
# certificates.sh NAMESPACE...: creates the adapter's certificate in weir-system, and a certificate for the proxies in
# each of these namespaces, which are the namespaces of the proxies' pods. If the cluster has cert-manager, cert-manager
# issues and renews them. Otherwise, openssl issues them for a year. To renew them, run this script again.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "certificates.sh NAMESPACE...: the namespaces of the gateways' pods" >&2; exit 1; }
system=weir-system

# secret NAMESPACE NAME FILE: creates a Secret with FILE.crt, FILE.key and the authority.
secret() {
  kubectl -n "$1" create secret generic "$2" --dry-run=client -o yaml \
    --from-file=tls.crt="$3.crt" --from-file=tls.key="$3.key" --from-file=ca.crt="$(dirname "$3")/ca.crt" | kubectl apply -f -
}

by_cert_manager() {
  local namespace
  kubectl apply -f manifests/cert-manager/adapter.yaml
  kubectl -n "$system" wait --for=condition=Ready --timeout=120s certificate/weir-authority certificate/limitador-adapter
  kubectl -n "$system" get secret weir-authority -o jsonpath='{.data.tls\.crt}' | base64 -d >"$work/ca.crt"
  kubectl -n "$system" get secret weir-authority -o jsonpath='{.data.tls\.key}' | base64 -d >"$work/ca.key"
  for namespace; do
    kubectl -n "$namespace" create secret tls weir-authority --cert="$work/ca.crt" --key="$work/ca.key" --dry-run=client -o yaml |
      kubectl apply -f -
    kubectl -n "$namespace" apply -f manifests/cert-manager/proxy.yaml
  done
}

by_openssl() {
  local who namespace
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=weir \
    -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
  for who in limitador-adapter weir-proxy; do
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" \
      -keyout "$work/$who.key" -out "$work/$who.csr" 2>/dev/null
    openssl x509 -req -in "$work/$who.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 365 \
      -extfile <(echo "subjectAltName=DNS:$who.$system.svc") -out "$work/$who.crt" 2>/dev/null
  done
  secret "$system" limitador-adapter-tls "$work/limitador-adapter"
  for namespace; do secret "$namespace" weir-proxy-tls "$work/weir-proxy"; done
}

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
if kubectl get crd certificates.cert-manager.io >/dev/null 2>&1; then by_cert_manager "$@"; else by_openssl "$@"; fi
