#!/usr/bin/env bash
# Tests dist/release, which `make release` writes. RELEASE_TEST=files leaves out the cluster, which needs root.
. "$(dirname "$0")/kubernetes.sh"
. scripts/release/layers.sh
. scripts/release/sbom.sh
release="${WEIR_RELEASE:-$PWD/dist/release}"
version="$(python3 scripts/version.py)"
[ -f "$release/SHA256SUMS" ] || die "there is no release in $release: run make release"
# The release may be for some architectures only.
WEIR_ARCHITECTURES="$(cd "$release" && ls | sed -n 's/.*-\([a-z0-9_]*\)-linux$/\1/p' | xargs)"
export WEIR_ARCHITECTURES
work="$(mktemp -d)"
trap 'stop_registry; rm -rf "$work"' EXIT
registry_process=
stop_registry() { [ -z "$registry_process" ] || kill "$registry_process" 2>/dev/null || true; }
need_release_tools
need_helm

say "workflows, versions and pages"
"$release_tools/actionlint" -color
python3 scripts/version.py check
python3 scripts/compatibility.py check

say "checksums and notes"
(cd "$release" && sha256sum --check --quiet --strict SHA256SUMS)
diff <(cd "$release" && ls) <(grep -o '^| `[^`]*` |' "$release/release-notes.md" | tr -d '|` ' | grep -v '^File' | sort) \
  || die "the release notes do not name the files of the release"
grep -q "\"content\": \"$(sha256sum <"$release/weir-$version.wasm" | cut -d' ' -f1)\"" "$release/weir-$version.cdx.json" \
  || die "the bill of materials has another digest of the module"

check_sbom "$release/weir-$version.cdx.json"

say "images"
"$release_tools/release" check "$release"/*.oci.tar
# Envoy Gateway and Istio read the last layer of the module's image.
for platform in amd64 arm64; do
  "$release_tools/release" export "$release/filter-$version.oci.tar" "$platform" | tar --extract --to-stdout plugin.wasm |
    cmp - "$release/weir-$version.wasm"
done
as_root=()
[ "$(id -u)" = 0 ] || as_root=(unshare --user --map-root-user)
# bare ARCHITECTURE [EMULATOR]: starts the adapter of the image with no other files than the image's.
bare() {
  local root="$work/$1" found
  mkdir "$root"
  "$release_tools/release" export "$release/limitador-adapter-$version.oci.tar" "$1" | tar --extract --directory "$root"
  [ -z "${2:-}" ] || cp "$(command -v "$2")" "$root/emulator"
  found="$("${as_root[@]}" chroot "$root" ${2:+/emulator} /limitador-adapter --version)"
  [ "$found" = "limitador-adapter $version" ] || die "the adapter for $1 says that it is $found"
  echo "$1: $found"
  cmp "$root/weir.wasm" "$release/weir-$version.wasm"
}
for program in "$release"/*-linux; do
  case "$program" in
    *-"$(uname -m)"-linux) bare "$(dpkg --print-architecture)" ;;
    *-aarch64-linux) need qemu-aarch64-static qemu-user-static; bare arm64 qemu-aarch64-static ;;
    *-x86_64-linux) need qemu-x86_64-static qemu-user-static; bare amd64 qemu-x86_64-static ;;
  esac
done

say "publishing, to a registry on this machine"
"$release_tools/crane" registry serve --address localhost:0 >"$work/registry.log" 2>&1 &
registry_process=$!
for _ in $(seq 100); do
  port="$(sed -n 's/.*serving on port \([0-9]*\).*/\1/p' "$work/registry.log")"
  [ -z "$port" ] || break
  sleep 0.1
done
[ -n "$port" ] || die "the registry did not start: $(cat "$work/registry.log")"
WEIR_RELEASE="$release" bash scripts/publish.sh "localhost:$port/weir" | tee "$work/published"
while read -r name digest; do
  "$release_tools/crane" validate --remote "$name@$digest" >/dev/null
  grep -q "$digest" "$release/release-notes.md" || die "the notes have another digest of $name"
done <"$work/published"
"$WEIR_HELM" pull "oci://localhost:$port/weir/charts/weir" --version "$version" --plain-http --destination "$work" >/dev/null 2>&1
cmp "$work/weir-$version.tgz" "$release/weir-$version.tgz"
stop_registry

if grep -q "the commit $(git rev-parse HEAD)\." "$release/release-notes.md"; then
  say "the same files a second time"
  WEIR_PROGRAMS="$release" WEIR_RELEASE="$work/again" quietly bash scripts/release.sh
  diff "$release/SHA256SUMS" "$work/again/SHA256SUMS"
  say "the same release for a registry"
  WEIR_REGISTRY=registry.invalid/weir WEIR_PROGRAMS="$release" WEIR_RELEASE="$work/registry" quietly bash scripts/release.sh
  "$WEIR_HELM" template weir "$work/registry/weir-$version.tgz" >"$work/rendered"
  tar --extract --to-stdout --file "$work/registry/weir-manifests-$version.tar.gz" "weir-$version/manifests/adapter/adapter.yaml" >>"$work/rendered"
  [ "$(grep -c "image: registry.invalid/weir/limitador-adapter:$version" "$work/rendered")" = 2 ] \
    || die "the chart and the manifests do not name the registry"
else
  echo "reproducibility: NOT checked, since the release is of another commit" >&2
fi

export WEIR_WASM="$release/weir-$version.wasm" WEIR_ADAPTER="$release/limitador-adapter-$version-$(uname -m)-linux"
need_envoy
say "the programs in $("$WEIR_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|Envoy \1|p')"
cargo test -p e2e --locked --target-dir "$target" --test gateway

[ "${RELEASE_TEST:-}" != files ] || exit 0
WEIR_RELEASE="$release" bash scripts/cluster-test.sh --ignored a_release_is_installed
