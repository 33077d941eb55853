#!/usr/bin/env bash
# node.sh WORK NAME: the first process of a node. It runs containerd, kubelet and kube-proxy in separate network, mount
# and process namespaces.
. "$(dirname "$0")/programs.sh"
work="$1" name="$2"
node="$work/$name" cgroup="$(basename "$work")-$name" log="$work/log"

# The programs use fixed paths, which must be private to this node.
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
for folder in lib/kubelet lib/cni lib/containerd log/pods log/containers; do
  mkdir -p "/var/$folder" "$node/$folder"
  mount --bind "$node/$folder" "/var/$folder"
done
mount --make-rshared /var/lib/kubelet
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1

# Creates the cgroups of the pods, in every hierarchy of cgroup v1 or in the single hierarchy of v2.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p "/sys/fs/cgroup/$cgroup"
else
  for hierarchy in /sys/fs/cgroup/*/; do
    [ -f "$hierarchy/tasks" ] || continue
    mkdir -p "$hierarchy/$cgroup"
    for file in cpuset.cpus cpuset.mems; do
      [ ! -f "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$cgroup/$file"
    done
  done
fi

mkdir -p "$node/cni"
cat >"$node/cni/10-weir.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/networks",
    "ranges": [[{"subnet": "10.244.${name#n}.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
# Without CAP_SYS_RESOURCE, runc may not lower a container's oom_score_adj.
cat >"$node/containerd.toml" <<EOF
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "$node/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$node/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
EOF
echo "nameserver 127.0.0.1" >"$node/resolv.conf"
cat >"$node/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $work/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$node/containerd.sock
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: $node/resolv.conf
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
EOF
# This cluster must not change the machine's connection limits.
cat >"$node/proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: $work/pki/proxy.conf}
clusterCIDR: 10.244.0.0/16
hostnameOverride: $name
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
EOF

containerd --config "$node/containerd.toml" >"$log/containerd-$name.log" 2>&1 &
until ctr -a "$node/containerd.sock" version >/dev/null 2>&1; do sleep 0.1; done
for image in "$work"/images/*.tar; do ctr -a "$node/containerd.sock" -n k8s.io images import "$image"; done
"$nodes/kubelet" --config="$node/kubelet.yaml" --kubeconfig="$work/pki/kubelet-$name.conf" --hostname-override="$name" \
  --node-ip="10.97.0.1${name#n}" >"$log/kubelet-$name.log" 2>&1 &
"$nodes/kube-proxy" --config="$node/proxy.yaml" >"$log/kube-proxy-$name.log" 2>&1 &
wait
