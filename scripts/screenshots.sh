#!/usr/bin/env bash
# Takes the pictures of docs/page.md again.
. "$(dirname "$0")/tools.sh"

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
WEIR_SCREENSHOTS="$folder" PAGE=everyone_can_use_it bash scripts/test-page.sh
mkdir -p docs/images
for name in overview-light-desktop overview-dark-desktop buckets-light-desktop usage-light-desktop refusals-light-desktop; do
  cp "$folder/$name.png" "docs/images/page-$name.png"
done
say "docs/images"
