#!/usr/bin/env bash
# Copies the libraries of the adapter's page from npm into the page's folder, in the versions that package-lock.json pins.
# Users and builds do not need npm, because the copies are committed. To update one: change package.json, run
# `npm install --package-lock-only --omit-lockfile-registry-resolved` beside it, then this script.
. "$(dirname "$0")/tools.sh"

need_node
place="limitador-adapter/src/admin/page/vendor"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$place/package.json" "$place/package-lock.json" "$work"
quietly npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund || die "the libraries could not be downloaded"
modules="$work/node_modules"

# Source maps are not served. The page's security policy forbids an import map, so a bare name becomes a path.
copy() { sed -E -e '/^\/\/# sourceMappingURL=/d' -e 's/(from *)"preact"/\1".\/preact.js"/g' -e "s/'\.\/errors\.js'/'.\/eventsource-errors.js'/" "$modules/$1" >"$place/$2"; }
copy preact/dist/preact.mjs preact.js
copy preact/hooks/dist/hooks.mjs hooks.js
copy htm/dist/htm.module.js htm.js
copy eventsource-parser/dist/errors.js eventsource-errors.js
copy eventsource-parser/dist/parse.js eventsource-parser.js
copy uplot/dist/uPlot.iife.min.js uplot.js
copy uplot/dist/uPlot.min.css uplot.css

for package in preact htm eventsource-parser uplot; do
  printf '%s %s\n\n' "$package" "$(sed -n 's/^  "version": "\(.*\)".*/\1/p' "$modules/$package/package.json" | head -n 1)"
  cat "$modules/$package/LICENSE"
  printf '\n\n'
done >"$place/LICENSES.txt"

(cd "$place" && sha256sum ./*.js ./*.css LICENSES.txt >SHA256SUMS)
say "$(cat "$place"/*.js "$place"/*.css | wc -c) bytes in $place"
