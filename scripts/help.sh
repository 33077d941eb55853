#!/usr/bin/env bash
# Lists the Makefile's targets with their descriptions.
. "$(dirname "$0")/common.sh"
sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
