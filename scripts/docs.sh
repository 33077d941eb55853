#!/usr/bin/env bash
# Builds the site of docs/ into dist/site. The build fails if a link is broken or a page is not listed.
. "$(dirname "$0")/tools.sh"

need_mkdocs
say "building the site"
NO_MKDOCS_2_WARNING=1 "$mkdocs" build --quiet --strict --config-file mkdocs.yml
echo "dist/site/index.html"
