#!/usr/bin/env bash
# publish.sh REGISTRY: pushes the images and the chart of dist/release to a registry, such as ghcr.io/OWNER/weir. Log in with
# `docker login` or `crane auth login` before. Prints "IMAGE DIGEST" for each image.
. "$(dirname "$0")/kubernetes.sh"
. scripts/release/layers.sh
[ $# = 1 ] || die "publish.sh REGISTRY"
registry="${1,,}" # As in the names of images.
release="${WEIR_RELEASE:-dist/release}"
version="$(python3 scripts/version.py)"
need_release_tools
need_helm
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

for name in limitador-adapter filter; do
  mkdir "$work/$name"
  tar --extract --file "$release/$name-$version.oci.tar" --directory "$work/$name"
  pushed="$("$release_tools/crane" push "$work/$name" "$registry/$name:$version")"
  echo "$registry/$name ${pushed##*@}"
done
plain=()
[[ "$registry" != localhost:* ]] || plain=(--plain-http)
# Helm appends the name of the chart.
quietly "$WEIR_HELM" push "$release/weir-$version.tgz" "oci://$registry/charts" "${plain[@]}" || die "the chart cannot be pushed"
