#!/usr/bin/env bash
# Generates docs/reference/ and docs/providers.md from the code's own tables.
. "$(dirname "$0")/tools.sh"
need_cargo
UPDATE_EXPECT=1 cargo test -p limitador-adapter --locked --target-dir "$target" --test reference page_of
