# Sourced: provides a kube-apiserver, etcd and kubectl for tests without containers, and Gateway API's definitions. If
# KUBEBUILDER_ASSETS is set (envtest's convention), the programs in it are used. Otherwise, they are built once from Go
# modules.
. "$(dirname "${BASH_SOURCE[0]}")/tools.sh"

kubernetes_pin="$(sed -n 's/^\tk8s.io\/kubernetes v\([0-9.]*\).*/\1/p' scripts/k8s/go.mod)"
gateway_api_pin=1.4.1
envoy_gateway_pin=1.9.1
istio_pin=1.28.0
# The newest version on Go's module proxy, which has istio.io/istio's commits but not its releases.
istio_server_pin=v0.0.0-20260827124520-eed52ebb66ad
istio_gateway_api_pin=1.6.0
prometheus_operator_pin=0.85.0
cert_manager_pin=1.19.1

need_kubernetes() {
  local place="$cache/kubernetes-$kubernetes_pin"
  if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    [ -x "$KUBEBUILDER_ASSETS/kube-apiserver" ] || die "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no kube-apiserver"
  elif [ ! -x "$place/kube-apiserver" ]; then
    build_kubernetes "$place"
  fi
  command -v kubectl >/dev/null || [ -x "${KUBEBUILDER_ASSETS:-$place}/kubectl" ] || build_kubectl "$place"
  need_definitions "$cache/gateway-api-$gateway_api_pin" "sigs.k8s.io/gateway-api@v$gateway_api_pin" \
    config/crd/standard/gateway.networking.k8s.io_{gatewayclasses,gateways,grpcroutes,httproutes}.yaml
  need_definitions "$cache/envoy-gateway-$envoy_gateway_pin" "github.com/envoyproxy/gateway@v$envoy_gateway_pin" \
    charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_{clienttrafficpolicies,envoyextensionpolicies,envoypatchpolicies,envoyproxies,securitypolicies}.yaml
  need_definitions "$cache/istio-$istio_pin" "istio.io/api@v$istio_pin" kubernetes/customresourcedefinitions.gen.yaml
  need_definitions "$cache/prometheus-operator-$prometheus_operator_pin" \
    "github.com/prometheus-operator/prometheus-operator@v$prometheus_operator_pin" \
    example/prometheus-operator-crd/monitoring.coreos.com_{prometheusrules,servicemonitors}.yaml
  need_definitions "$cache/cert-manager-$cert_manager_pin" "github.com/cert-manager/cert-manager@v$cert_manager_pin" \
    deploy/crds/cert-manager.io_{certificates,issuers}.yaml
}

# Go 1.21 and later download the toolchain that a module requires.
need_go() {
  command -v go >/dev/null || PATH="$PATH:/usr/local/go/bin"
  command -v go >/dev/null || die "Go is missing (https://go.dev/dl); or KUBEBUILDER_ASSETS=FOLDER names a folder with kube-apiserver and etcd"
}

go_build() { quietly env -C scripts/k8s go build -trimpath -ldflags "$3" -o "$1" "$2" || die "$2 could not be built"; }

build_kubernetes() {
  local work version=k8s.io/component-base/version
  need_go
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/kubernetes.XXXXXX")"
  say "building kube-apiserver $kubernetes_pin and etcd from their Go modules, once (5 to 10 minutes)"
  go_build "$work/etcd" go.etcd.io/etcd/server/v3 "-s -w"
  go_build "$work/kube-apiserver" k8s.io/kubernetes/cmd/kube-apiserver \
    "-s -w -X $version.gitVersion=v$kubernetes_pin -X $version.gitMajor=${kubernetes_pin%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<"$kubernetes_pin")"
  rm -rf "$1"
  mv "$work" "$1"
}

build_kubectl() {
  need_go
  mkdir -p "$1"
  say "building kubectl $kubernetes_pin, once"
  go_build "$1/.kubectl" k8s.io/kubernetes/cmd/kubectl "-s -w"
  mv "$1/.kubectl" "$1/kubectl"
}

# Builds Envoy Gateway's control plane, for Linux as in its own image, and copies its definitions. `go install` cannot
# build the module by its version, so it is built in its download folder.
need_envoy_gateway() {
  local place="$cache/envoy-gateway-server-$envoy_gateway_pin" work folder
  [ ! -x "$place/envoy-gateway" ] || return 0
  need_go
  folder="$(module_folder "github.com/envoyproxy/gateway@v$envoy_gateway_pin")"
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/envoy-gateway.XXXXXX")"
  cp -r "$folder" "$work/module"
  chmod -R u+w "$work"
  say "building Envoy Gateway $envoy_gateway_pin from its Go module, once (5 to 15 minutes)"
  quietly env -C "$work/module" CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$work/place/envoy-gateway" ./cmd/envoy-gateway \
    || die "Envoy Gateway could not be built"
  cp -r "$work/module/charts/gateway-helm/charts/crds/crds" "$work/place/crds"
  rm -rf "$place"
  mv "$work/place" "$place"
  rm -rf "$work"
}

# Builds Istio's control plane, its agent and istioctl. Copies the agent's template for Envoy's bootstrap, and the
# definitions of the Gateway API version that Istio uses.
need_istio() {
  local place="$cache/istio-server-$istio_server_pin" work folder version=istio.io/istio/pkg/version
  [ ! -x "$place/pilot-discovery" ] || return 0
  need_go
  folder="$(module_folder "istio.io/istio@$istio_server_pin")"
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/istio.XXXXXX")"
  cp -r "$folder" "$work/module"
  chmod -R u+w "$work"
  mkdir "$work/place"
  say "building Istio's control plane from its Go module, once (8 to 15 minutes)"
  quietly env -C "$work/module" CGO_ENABLED=0 go build -trimpath -tags vtprotobuf,disable_pgv \
    -ldflags "-s -w -X $version.buildVersion=${istio_server_pin##*-} -X $version.buildStatus=Clean" -o "$work/place/" \
    ./pilot/cmd/pilot-discovery ./pilot/cmd/pilot-agent ./istioctl/cmd/istioctl || die "Istio could not be built"
  cp "$work/module/tools/packaging/common/envoy_bootstrap.json" "$work/place/"
  folder="$(module_folder "sigs.k8s.io/gateway-api@v$istio_gateway_api_pin")"
  cp -r "$folder/config/crd/standard" "$work/place/gateway-api"
  chmod -R u+w "$work"
  rm -rf "$place"
  mv "$work/place" "$place"
  rm -rf "$work"
}

# Sets WEIR_HELM. Keeps the current value if there is one. Otherwise, uses the pinned version, built from its Go module.
need_helm() {
  local pin place
  pin="$(sed -n 's/.*helm.sh\/helm\/v4 v\([0-9.]*\).*/\1/p' scripts/helm/go.mod)"
  place="$cache/helm-$pin"
  if [ -z "${WEIR_HELM:-}" ] && [ ! -x "$place/helm" ]; then
    need_go
    mkdir -p "$place"
    say "building Helm $pin from its Go module, once (2 to 5 minutes)"
    quietly env -C scripts/helm CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$place/.helm" helm.sh/helm/v4/cmd/helm \
      || die "Helm could not be built"
    mv "$place/.helm" "$place/helm"
  fi
  export WEIR_HELM="${WEIR_HELM:-$place/helm}"
}

# Prints the folder of a Go module's files, and downloads them if necessary.
module_folder() {
  local folder
  folder="$(go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",/\1/p')"
  [ -n "$folder" ] || die "$1 could not be downloaded"
  echo "$folder"
}

# need_definitions PLACE MODULE@VERSION FILE...: copies definitions from a Go module.
need_definitions() {
  local place="$1" module="$2" work folder
  shift 2
  [ "$(ls "$place" 2>/dev/null | wc -l)" != $# ] || return 0
  need_go
  folder="$(module_folder "$module")"
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/definitions.XXXXXX")"
  (cd "$folder" && cp "$@" "$work")
  chmod -R u+w "$work"
  rm -rf "$place"
  mv "$work" "$place"
}
