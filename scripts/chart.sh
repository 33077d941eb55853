#!/usr/bin/env bash
# Renders the plain manifests, and the expected output of the chart's tests, from manifests/chart. `chart.sh check`
# changes nothing, and fails if the files differ.
. "$(dirname "$0")/kubernetes.sh"
need_helm
chart=manifests/chart
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$WEIR_HELM" lint --quiet --strict "$chart" --set image.repository=registry.example.com/limitador-adapter \
  || die "helm lint: $chart has mistakes"

# render TEMPLATE...: renders these templates for the release `weir` in weir-system, with the values on standard input.
render() {
  local shown=() template
  for template in "$@"; do shown+=(--show-only "templates/$template"); done
  "$WEIR_HELM" template weir "$chart" --namespace weir-system --values - "${shown[@]}" | sed '/^# Source: /d; /^$/d; 1{/^---$/d}'
}

# plain FILE HEADER TEMPLATE...: writes a manifest for kubectl.
plain() {
  local file="$1" header="$2"
  shift 2
  mkdir -p "$work/$(dirname "$file")"
  { printf '# Rendered from manifests/chart by `make chart`.%s\n\n' "${header:+ $header}"; render "$@"; } >"$work/$file"
}

image='image: {repository: registry.example.com/limitador-adapter}'
plain manifests/adapter/adapter.yaml 'The adapter: kubectl apply --server-side -k manifests/adapter' \
  rbac.yaml data.yaml deployment.yaml service.yaml <<<"$image"
plain manifests/overlays/redis/redis.yaml '' redis.yaml <<<"{$image, storage: {type: redis, redis: {deploy: true}}}"
plain manifests/cert-manager/adapter.yaml \
  'The authority, and the adapter'"'s certificate: kubectl apply -f manifests/cert-manager/adapter.yaml" \
  certificates.yaml <<<"{$image, tls: {certManager: {enabled: true}}}"
plain manifests/istio/envoyfilter.yaml "The filter in one Gateway.
# Apply it in the namespace of the Gateway, and replace 'llm-gateway' with the name of the Gateway. For several Gateways, apply a
# copy with another metadata.name for each. Never apply it without targetRefs: in istio-system it would change every gateway of
# the mesh. 'make manifests' fills in the digest of the module." istio.yaml \
  <<<"{$image, gateways: [{controller: Istio, namespace: '', name: llm-gateway, resourceName: weir}]}"
plain manifests/envoy-gateway/envoyextensionpolicy.yaml "The filter in one Gateway of Envoy Gateway.
# For a Gateway of another name, namespace or listener, replace 'llm-gateway' and 'default/llm-gateway/http' everywhere, and repeat
# the first patch of the EnvoyPatchPolicy for each listener. 'make manifests' fills in the digest of the module." envoy-gateway.yaml \
  <<<"{$image, gateways: [{controller: EnvoyGateway, namespace: default, name: llm-gateway, resourceName: weir}]}"
cp manifests/crds/tokenratelimitpolicies.yaml "$work/weir.dev.yaml"
mkdir -p "$work/$chart/files"
mv "$work/weir.dev.yaml" "$work/$chart/files/weir.dev.yaml"
cp manifests/crds/kuadrant/tokenratelimitpolicies.yaml "$work/$chart/files/kuadrant.io.yaml"
cp manifests/monitoring/{rules.yaml,dashboard.json} "$work/$chart/files/"

# Examples of users' values, and the manifests that they render to.
for values in e2e/chart/*.values.yaml; do
  out="${values%.values.yaml}.yaml"
  mkdir -p "$work/e2e/chart"
  "$WEIR_HELM" template weir "$chart" --namespace weir-system --set crds.install=false,crds.kuadrant=false --values "$values" >"$work/$out"
done

if [ "${1:-}" = check ]; then
  (cd "$work" && find . -type f | sort) | while read -r file; do
    diff -u "$file" "$work/$file" || die "$file is not what the chart renders: run make chart"
  done
else
  cp -r "$work"/* .
fi
