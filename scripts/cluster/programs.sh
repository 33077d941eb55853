# Sourced: the programs of a cluster with nodes, and the images that run in it.
. "$(dirname "${BASH_SOURCE[0]}")/../kubernetes.sh"

coredns_pin="$(sed -n 's/.*github.com\/coredns\/coredns v\([0-9.]*\).*/\1/p' scripts/coredns/go.mod | head -n 1)"
nodes="$cache/kubernetes-nodes-$kubernetes_pin"
coredns="$cache/coredns-$coredns_pin/coredns"

need_cluster() {
  need_kubernetes
  need_helm
  need_envoy
  need_envoy_gateway
  need containerd containerd runc
  need ctr containerd
  need iptables iptables
  need conntrack conntrack
  need ip iproute2
  need busybox busybox-static
  need openssl openssl
  need redis-check-rdb redis-tools
  need redis-cli redis-tools
  need curl curl ca-certificates
  need jq jq
  [ -x /usr/lib/cni/ptp ] || apt_install containernetworking-plugins
  build_nodes
  build_coredns
}

build_nodes() {
  local program version=k8s.io/component-base/version
  for program in kubelet kube-proxy kube-scheduler kube-controller-manager; do
    [ ! -x "$nodes/$program" ] || continue
    need_go
    mkdir -p "$nodes"
    say "building $program $kubernetes_pin from its Go module, once (1 to 3 minutes)"
    go_build "$nodes/.$program" "k8s.io/kubernetes/cmd/$program" \
      "-s -w -X $version.gitVersion=v$kubernetes_pin -X $version.gitMajor=${kubernetes_pin%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<"$kubernetes_pin")"
    mv "$nodes/.$program" "$nodes/$program"
  done
}

build_coredns() {
  [ ! -x "$coredns" ] || return 0
  need_go
  mkdir -p "$(dirname "$coredns")"
  say "building CoreDNS $coredns_pin from its Go module, once (1 to 3 minutes)"
  quietly env -C scripts/coredns CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$coredns.new" . || die "CoreDNS could not be built"
  mv "$coredns.new" "$coredns"
}

# Sets `charts` to Envoy Gateway's chart with the values of its release. The Go module contains the values only as a
# template.
need_envoy_gateway_chart() {
  charts="$cache/envoy-gateway-chart-$envoy_gateway_pin/gateway-helm"
  [ ! -d "$charts" ] || return 0
  local folder work
  need_go
  folder="$(module_folder "github.com/envoyproxy/gateway@v$envoy_gateway_pin")"
  work="$(mktemp -d "$cache/chart.XXXXXX")"
  cp -r "$folder/charts/gateway-helm" "$work/"
  chmod -R u+w "$work"
  GatewayImage="docker.io/envoyproxy/gateway:v$envoy_gateway_pin" GatewayImagePullPolicy=IfNotPresent \
    python3 -c 'import os, string, sys; print(string.Template(sys.stdin.read()).safe_substitute(os.environ), end="")' \
    <"$work/gateway-helm/values.tmpl.yaml" >"$work/gateway-helm/values.yaml"
  sed -i "s/^version: .*/version: $envoy_gateway_pin/; s/^appVersion: .*/appVersion: v$envoy_gateway_pin/" "$work/gateway-helm/Chart.yaml"
  rm -rf "$(dirname "$charts")"
  mv "$work" "$(dirname "$charts")"
}
