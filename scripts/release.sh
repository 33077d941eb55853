#!/usr/bin/env bash
# Writes a release into dist/release: the module, the adapter for each architecture, images, the chart, the manifests, a
# bill of materials, notes and checksums. docs/releasing.md describes how to publish it. Variables:
#   WEIR_REGISTRY       where the images will be, such as ghcr.io/OWNER/weir; the chart and the manifests name it
#   WEIR_ARCHITECTURES  "x86_64 aarch64" unless set
#   WEIR_PREVIOUS       the module of the previous release, which the adapter's image serves as well
#   WEIR_PROGRAMS       a folder with the module and the adapters of a release, instead of a build
#   WEIR_RELEASE        the folder, instead of dist/release
. "$(dirname "$0")/kubernetes.sh"
. scripts/release/rootfs.sh
. scripts/release/sbom.sh
. scripts/release/layers.sh
umask 022
placeholder=registry.example.com
# The adapter runs on Debian 12, Ubuntu 22.04, RHEL 9 and newer.
glibc_bound=2.34
registry="${WEIR_REGISTRY:-$placeholder}"
registry="${registry,,}"
read -ra architectures <<<"${WEIR_ARCHITECTURES:-x86_64 aarch64}"
version="$(python3 scripts/version.py)"
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH WEIR_VERSION="$version"
out="${WEIR_RELEASE:-dist/release}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Prints Go's name of an architecture, which images use.
platform() { case "$1" in x86_64) echo amd64 ;; aarch64) echo arm64 ;; *) die "no image for $1" ;; esac; }

# build_adapter ARCHITECTURE: builds the adapter for another architecture, and prints its path.
build_adapter() {
  local triple="$1-unknown-linux-gnu" compiler="$1-linux-gnu-gcc"
  local variable="CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_LINKER"
  need "$compiler" "gcc-${1/_/-}-linux-gnu" "libc6-dev-$(platform "$1")-cross"
  say "building the adapter for $1"
  export "$variable=$compiler"
  cargo_for "$triple" build -p limitador-adapter --release --locked >&2
  echo "$target/$triple/release/limitador-adapter"
}

# Fails if a program needs a newer C library than documented.
check_glibc() {
  local newest
  newest="$(readelf --version-info --wide "$1" | grep -o 'GLIBC_2[0-9.]*' | sort -Vu | tail -n 1)"
  [ "$(printf '%s\n' "GLIBC_$glibc_bound" "$newest" | sort -V | tail -n 1)" = "GLIBC_$glibc_bound" ] \
    || die "$1 needs $newest, but the release promises $glibc_bound: build it on Debian 12"
}

programs() {
  local architecture file adapter
  if [ -n "${WEIR_PROGRAMS:-}" ]; then
    cp "$WEIR_PROGRAMS/weir-$version.wasm" "$WEIR_PROGRAMS/limitador-adapter-$version"-*-linux "$out"
    return
  fi
  bash scripts/build.sh
  install -m 644 dist/weir.wasm "$out/weir-$version.wasm"
  for architecture in "${architectures[@]}"; do
    file="$out/limitador-adapter-$version-$architecture-linux"
    if [ "$architecture" = "$(uname -m)" ]; then
      adapter=dist/limitador-adapter
    else
      adapter="$(build_adapter "$architecture")"
    fi
    install -m 755 "$adapter" "$file"
  done
}

# The adapter's image is that of the stage `adapter` in the Dockerfile: Debian's C library, the adapter, and the modules.
adapter_image() {
  local architecture platform root platforms=()
  mkdir -p "$work/modules/previous"
  cp "$out/weir-$version.wasm" "$work/modules/weir.wasm"
  [ -z "${WEIR_PREVIOUS:-}" ] || cp "$WEIR_PREVIOUS" "$work/modules/previous/plugin.wasm"
  archive "$work/modules" >"$work/modules.tar"
  for architecture in "${architectures[@]}"; do
    platform="$(platform "$architecture")"
    root="$work/$platform"
    rootfs "$platform" "$root"
    archive "$root" >"$root.tar"
    mkdir "$root-adapter"
    cp "$out/limitador-adapter-$version-$architecture-linux" "$root-adapter/limitador-adapter"
    archive "$root-adapter" >"$root-adapter.tar"
    platforms+=("{\"architecture\": \"$platform\", \"layers\": [\"$root.tar\", \"$root-adapter.tar\", \"$work/modules.tar\"]}")
  done
  image "$out/limitador-adapter-$version.oci.tar" "$registry/limitador-adapter:$version" \
    '{"User": "65532:65532", "Entrypoint": ["/limitador-adapter"], "Cmd": ["serve"], "Env": [
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "WEIR_WASM_PREVIOUS=/previous"]}' \
    "[$(IFS=,; echo "${platforms[*]}")]"
}

# The module's image is that of the stage `filter` in the Dockerfile. The module is the same for all architectures.
module_image() {
  local layers
  mkdir "$work/module"
  cp "$out/weir-$version.wasm" "$work/module/plugin.wasm"
  archive "$work/module" >"$work/module.tar"
  layers="\"layers\": [\"$work/module.tar\"]"
  image "$out/filter-$version.oci.tar" "$registry/filter:$version" '{}' \
    "[{\"architecture\": \"amd64\", $layers}, {\"architecture\": \"arm64\", $layers}]"
}

# with_digest FOLDER: fills in the module's digest.
with_digest() { grep -rlE '0{64}' "$1" | xargs sed -i "s/0\{64\}/$(sha256sum <"$out/weir-$version.wasm" | cut -d' ' -f1)/"; }

chart() {
  need_helm
  cp -r manifests/chart "$work/chart"
  with_digest "$work/chart"
  [ "$registry" = "$placeholder" ] || sed -i "0,/^  repository: \"\"/s||  repository: $registry/limitador-adapter|" "$work/chart/values.yaml"
  quietly "$WEIR_HELM" package "$work/chart" --destination "$work" || die "the chart cannot be packaged"
  # Helm's archive contains the present time.
  mkdir "$work/packaged"
  tar --extract --file "$work/weir-$version.tgz" --directory "$work/packaged"
  archive "$work/packaged" | gzip --best --no-name >"$out/weir-$version.tgz"
}

plain_manifests() {
  local folder="$work/plain/weir-$version"
  mkdir -p "$folder/scripts"
  cp -r manifests "$folder/"
  rm -r "$folder"/manifests/{chart,kind}
  cp scripts/certificates.sh "$folder/scripts/"
  cp LICENSE "$folder/"
  with_digest "$folder"
  grep -rlF "$placeholder" "$folder" | xargs sed -i "s|$placeholder|$registry|"
  archive "$work/plain" | gzip --best --no-name >"$out/weir-manifests-$version.tar.gz"
}

python3 scripts/version.py check
[ -z "$(git status --porcelain)" ] || say "do not publish this release: the working tree differs from its commit"
need_release_tools
need readelf binutils
rm -rf "$out"
mkdir -p "$out"
programs
for program in "$out"/*-linux; do check_glibc "$program"; done
say "images, chart, manifests, bill of materials"
adapter_image >"$work/limitador-adapter.digest"
module_image >"$work/filter.digest"
chart
plain_manifests
sbom "$out/weir-$version.cdx.json" "$out"/*.wasm "$out"/*-linux "$work"/*.packages
python3 scripts/release/notes.py "$out" "$registry" "$work" >"$out/release-notes.md"
(cd "$out" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
say "$out is Weir $version"
ls -l "$out" >&2
