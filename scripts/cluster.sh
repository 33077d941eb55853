#!/usr/bin/env bash
# cluster.sh COMMAND...: runs a command on the control plane of a real Kubernetes cluster of two nodes, which exists
# only while the command runs. KUBECONFIG points to it. It needs root and Debian's packages, but no container engine.
# The nodes are processes in separate network, mount and process namespaces, so everything ends when one process ends.
. "$(dirname "$0")/cluster/programs.sh"
[ $# -gt 0 ] || die "cluster.sh COMMAND..."
[ "$(id -u)" = 0 ] || die "nodes need root: kubelet and containerd mount file systems and make cgroups"
need_cluster

work="$(mktemp -d "${WEIR_CLUSTER_DIR:-/var/tmp}/weir-XXXXXX")"
name="$(basename "$work")"
chmod 755 "$work"
# A kubelet changes these settings for the whole machine.
sysctl vm.overcommit_memory kernel.panic kernel.panic_on_oops >"$work/sysctls"

down() {
  trap - EXIT INT TERM
  kill -KILL "$namespaces" 2>/dev/null || true
  wait "$namespaces" 2>/dev/null || true
  local cgroup left
  for _ in $(seq 100); do
    left="$(find /sys/fs/cgroup/ -maxdepth 2 -type d -name "$name-n*")"
    [ -n "$left" ] || break
    # Processes that have just been killed may still be in the cgroups.
    while read -r cgroup; do find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null || true; done <<<"$left"
    sleep 0.1
  done
  sysctl -q -p "$work/sysctls"
  rm -rf "$work"
  [ -z "$left" ] || die "these cgroups of the cluster cannot be removed: $left"
}

namespaces=
trap down EXIT
trap 'exit 130' INT TERM
unshare --net --mount --pid --fork --kill-child --mount-proc bash scripts/cluster/control-plane.sh "$work" "$@" <&0 &
namespaces=$!
status=0
wait "$namespaces" || status=$?
exit "$status"
