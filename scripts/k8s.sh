#!/usr/bin/env bash
# up: starts a kube-apiserver with etcd on this machine, and installs the definitions of Weir and Gateway API. Its
# kubeconfig is .k8s/kubeconfig. down: stops it.
. "$(dirname "$0")/kubernetes.sh"

down() {
  local pid
  [ -f .k8s/pid ] || return 0
  pid="$(cat .k8s/pid)"
  # By now, the process id may belong to another program.
  ! tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'cluster .k8s/kubeconfig' || kill "$pid"
  rm -rf .k8s
}

case "${1:-}" in
  up)
    need_kubernetes
    cargo build -p e2e --bin cluster --locked --target-dir "$target"
    down
    mkdir -p .k8s
    nohup "$target/debug/cluster" .k8s/kubeconfig >.k8s/log 2>&1 &
    echo $! >.k8s/pid
    until [ -f .k8s/kubeconfig ]; do
      kill -0 "$(cat .k8s/pid)" 2>/dev/null || die "the cluster ended: $(tail -n 5 .k8s/log)"
      sleep 0.2
    done
    say "export KUBECONFIG=$PWD/.k8s/kubeconfig"
    ;;
  down) down ;;
  *) die "k8s.sh up|down" ;;
esac
