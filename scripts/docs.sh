#!/usr/bin/env bash
# Builds the site of docs/ into dist/site. A broken link or an unlisted page fails the build.
. "$(dirname "$0")/tools.sh"

need_mkdocs
say "building the site"
NO_MKDOCS_2_WARNING=1 "$mkdocs" build --quiet --strict --config-file mkdocs.yml
echo "dist/site/index.html"
