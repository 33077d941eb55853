#!/usr/bin/env bash
# control-plane.sh WORK COMMAND...: the first process in the cluster's namespaces. It starts the control plane and two
# nodes, connects the nodes without internet access, and runs the command.
. "$(dirname "$0")/programs.sh"
work="$1"
shift
node_names=(n1 n2)
export WEIR_CLUSTER="$work" KUBECONFIG="$work/pki/admin.conf" KUBECACHEDIR="$work/home"
export HELM_CACHE_HOME="$work/home" HELM_CONFIG_HOME="$work/home" HELM_DATA_HOME="$work/home"
PATH="$(dirname "$WEIR_HELM"):$PATH"
mkdir -p "$work"/{pki,log,home,images,volumes/1}
chmod 777 "$work"/volumes/1

network() {
  local name i
  mount -t tmpfs tmpfs /run
  ip link set lo up
  ip link add nodes type bridge
  ip address add 10.97.0.1/24 dev nodes
  ip link set nodes up
  sysctl -qw net.ipv4.ip_forward=1
  for name in "${node_names[@]}"; do
    i="${name#n}"
    ip netns add "$name"
    ip link add "$name" type veth peer name eth0 netns "$name"
    ip link set "$name" master nodes up
    ip -n "$name" link set lo up
    ip -n "$name" address add "10.97.0.1$i/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" route add default via 10.97.0.1
    # Adds routes to the pods of each node, from here and from the other node.
    ip route add "10.244.$i.0/24" via "10.97.0.1$i"
    for other in "${node_names[@]}"; do
      [ "$other" = "$name" ] || ip -n "$name" route add "10.244.${other#n}.0/24" via "10.97.0.1${other#n}"
    done
  done
  # Adds routes to Services, from here.
  ip route add 10.96.0.0/16 via 10.97.0.11
}

# sign NAME SUBJECT [NAMES]
sign() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" 2>/dev/null \
    -extfile <(echo "extendedKeyUsage=serverAuth,clientAuth"; [ -z "${3:-}" ] || echo "subjectAltName=$3")
}

# client NAME SUBJECT: writes a kubeconfig.
client() {
  sign "$1" "$2"
  KUBECONFIG="$1.conf"
  kubectl config set-cluster weir --server=https://10.97.0.1:6443 --certificate-authority=ca.crt --embed-certs >/dev/null
  kubectl config set-credentials "$1" --client-certificate="$1.crt" --client-key="$1.key" --embed-certs >/dev/null
  kubectl config set-context weir --cluster=weir --user="$1" >/dev/null
  kubectl config use-context weir >/dev/null
}

keys() (
  local name
  cd "$work/pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=cluster -keyout ca.key -out ca.crt 2>/dev/null
  sign apiserver /CN=kube-apiserver \
    DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:10.96.0.1,IP:10.97.0.1
  sign kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  client admin /O=system:masters/CN=admin
  client scheduler /CN=system:kube-scheduler
  client controller-manager /CN=system:kube-controller-manager
  client proxy /CN=system:kube-proxy
  for name in "${node_names[@]}"; do client "kubelet-$name" "/O=system:nodes/CN=system:node:$name"; done
  openssl genrsa -out accounts.key 2048 2>/dev/null
)

# start NAME COMMAND...: runs a command in the background, with a log.
start() {
  local name="$1"
  shift
  "$@" >"$work/log/$name.log" 2>&1 </dev/null &
}

# wait_for WHAT COMMAND...
wait_for() {
  local what="$1"
  shift
  for _ in $(seq 600); do
    ! "$@" >/dev/null 2>&1 || return 0
    sleep 0.2
  done
  tail -n 20 "$work"/log/*.log >&2
  die "waited two minutes in vain for $what"
}

control_plane() {
  local assets="${KUBEBUILDER_ASSETS:-$cache/kubernetes-$kubernetes_pin}" pki="$work/pki" program
  start etcd "$assets/etcd" --data-dir "$work/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
    --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
  start apiserver "$assets/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --bind-address=10.97.0.1 --advertise-address=10.97.0.1 \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged --service-cluster-ip-range=10.96.0.0/16 \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$pki/accounts.key" \
    --service-account-signing-key-file="$pki/accounts.key" --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key"
  # The controller-manager exits if there is no API server yet.
  wait_for "the API server" kubectl get --raw /readyz
  start scheduler "$nodes/kube-scheduler" --kubeconfig="$pki/scheduler.conf" \
    --authentication-kubeconfig="$pki/scheduler.conf" --authorization-kubeconfig="$pki/scheduler.conf"
  start controller-manager "$nodes/kube-controller-manager" --kubeconfig="$pki/controller-manager.conf" \
    --authentication-kubeconfig="$pki/controller-manager.conf" --authorization-kubeconfig="$pki/controller-manager.conf" \
    --use-service-account-credentials --service-account-private-key-file="$pki/accounts.key" --root-ca-file="$pki/ca.crt" \
    --allocate-node-cidrs=false
}

network
keys
control_plane
bash scripts/cluster/images.sh "$work/images" pause coredns ${WEIR_CLUSTER_IMAGES:-}
for node in "${node_names[@]}"; do
  mkdir -p "$work/$node"
  start "node-$node" nsenter --net="/run/netns/$node" unshare --mount --pid --fork --kill-child --mount-proc \
    bash scripts/cluster/node.sh "$work" "$node"
done
wait_for "the nodes" kubectl wait --for=condition=Ready --timeout=1s node "${node_names[@]}"
sed "s|\$COREDNS|$coredns_pin|; s|\$VOLUMES|$work/volumes|" scripts/cluster/system.yaml | kubectl apply --server-side -f - >/dev/null
kubectl -n kube-system rollout status deployment/coredns --timeout=120s >/dev/null
say "a cluster with the nodes ${node_names[*]}: KUBECONFIG=$KUBECONFIG"
"$@"
