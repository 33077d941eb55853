# Sourced: the archives and images of a release. The same contents always give the same bytes.

# archive FOLDER: writes a tar of a folder to standard output.
archive() {
  (cd "$1" && tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
    --mode=u+rwX,go+rX,go-w -- *)
}

need_release_tools() {
  release_tools="$cache/release-tools-$(cat scripts/release/go.sum scripts/release/main.go | sha256sum | cut -c1-16)"
  [ ! -x "$release_tools/release" ] || return 0
  need_go
  say "building the tools for images and workflows, once (1 to 3 minutes)"
  mkdir -p "$release_tools"
  quietly env -C scripts/release CGO_ENABLED=0 go build -trimpath -o "$release_tools/" \
    . github.com/google/go-containerregistry/cmd/crane github.com/rhysd/actionlint/cmd/actionlint \
    || die "the tools for images could not be built"
}

# image OUT NAME CONFIG PLATFORMS: writes an image for the platforms, a JSON list, as an OCI layout. Prints the digest.
image() {
  local spec
  spec="$(mktemp)"
  cat >"$spec" <<EOF
{"name": "$2", "created": $SOURCE_DATE_EPOCH, "config": $3, "platforms": $4, "annotations": {
  "org.opencontainers.image.title": "$(basename "${2%:*}")", "org.opencontainers.image.version": "${2##*:}",
  "org.opencontainers.image.revision": "$(git rev-parse HEAD)", "org.opencontainers.image.licenses": "Apache-2.0"}}
EOF
  "$release_tools/release" write "$spec" "$1"
  rm "$spec"
}
