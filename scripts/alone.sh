#!/usr/bin/env bash
# alone.sh ADDRESS=NAME[,NAME...]... -- COMMAND...: runs a command in a separate network and file system, because
# control planes and their proxies use fixed ports and folders, and resolve the names of a cluster. Each ADDRESS is
# added to the loopback interface, and its NAMEs resolve to it.
set -euo pipefail

# Inside, files have the same paths, except for those that a cluster uses. The only network is the loopback interface.
enter() {
  local root=/mnt entry names
  mount -t tmpfs none "$root"
  for entry in /*; do
    if [ -L "$entry" ]; then
      cp -P "$entry" "$root"
    elif [ -d "$entry" ] && [[ ! "$entry" =~ ^/(mnt|etc|var|run|certs|config|sds|lost\+found)$ ]]; then
      mkdir "$root$entry"
      mount --rbind "$entry" "$root$entry"
    fi
  done
  mkdir -p "$root"/etc "$root"/run "$root"/var/tmp
  cp /etc/passwd /etc/group "$root/etc/"
  echo 'hosts: files' >"$root/etc/nsswitch.conf"
  echo nameserver 127.0.0.1 >"$root/etc/resolv.conf"
  echo 127.0.0.1 localhost >"$root/etc/hosts"
  ip link set lo up
  while [ "$1" != -- ]; do
    names="${1#*=}"
    # Each name is also listed with a trailing dot, because some resolvers do not remove it.
    echo "${1%%=*} ${names//,/ } ${names//,/. }." >>"$root/etc/hosts"
    case "$1" in
      127.*) ;;
      *) ip address replace "${1%%=*}/32" dev lo ;;
    esac
    shift
  done
  shift
  exec chroot "$root" env -C "$PWD" WEIR_ALONE=true "$@"
}

if [ "${1:-}" = --inside ]; then
  shift
  enter "$@"
fi
isolated=(unshare --user --map-root-user --net --mount --pid --fork --kill-child --mount-proc)
"${isolated[@]}" true || {
  echo "this needs namespaces of its own, which this machine does not allow (unshare --user --net --mount --pid)" >&2
  exit 1
}
exec "${isolated[@]}" bash "$0" --inside "$@"
