# Sourced: the root file system of the adapter's image. It contains the same packages of Debian 12 as
# gcr.io/distroless/cc-debian12, and their entries in dpkg's database, so that scanners find them.
. scripts/debian.sh
rootfs_packages=(base-files ca-certificates gcc-12-base libc6 libgcc-s1)

# rootfs ARCHITECTURE ROOT: fills the folder ROOT for `amd64` or `arm64`. ROOT.packages lists the packages and versions.
rootfs() {
  local architecture="$1" root="$2" work deb package
  work="$(mktemp -d)"
  download_packages "$work" "$architecture" bookworm-security "${rootfs_packages[@]}"
  mkdir -p "$root"/{tmp,home/nonroot,etc/ssl/certs,var/lib/dpkg/status.d} "$work/all"
  for deb in "$work"/*.deb; do
    dpkg-deb --extract "$deb" "$work/all"
    package="$(dpkg-deb --field "$deb" Package)"
    # distroless uses one file for each package instead of one for all.
    dpkg-deb --field "$deb" >"$root/var/lib/dpkg/status.d/$package"
    dpkg-deb --show --showformat='${Package} ${Version} ${Architecture}\n' "$deb"
  done | sort >"$root.packages"
  copy_used "$work/all" "$root"
  cat "$work"/all/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
  chmod 1777 "$root/tmp"
  printf '%s\n' root:x:0:0::/root:/sbin/nologin nobody:x:65534:65534::/nonexistent:/sbin/nologin \
    nonroot:x:65532:65532::/home/nonroot:/sbin/nologin >"$root/etc/passwd"
  printf '%s\n' root:x:0: nobody:x:65534: nonroot:x:65532: >"$root/etc/group"
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  rm -rf "$work"
}

# Copies what a program needs at run time, and the licences.
copy_used() {
  local all="$1" root="$2" entry
  rm -rf "$all"/lib/*/audit
  for entry in lib lib64 usr/lib/os-release etc/os-release usr/share/common-licenses; do
    [ -e "$all/$entry" ] || [ -L "$all/$entry" ] || continue
    mkdir -p "$root/$(dirname "$entry")"
    cp -r --no-dereference "$all/$entry" "$root/$(dirname "$entry")/"
  done
  (cd "$all" && find usr/share/doc -name copyright -o -type l) | while read -r entry; do
    mkdir -p "$root/$(dirname "$entry")"
    cp --no-dereference "$all/$entry" "$root/$entry"
  done
}
