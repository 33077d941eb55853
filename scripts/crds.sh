#!/usr/bin/env bash
# Generates the CustomResourceDefinitions in manifests/crds/ from the Rust types.
. "$(dirname "$0")/tools.sh"
need_cargo
cargo build -p limitador-adapter --locked --target-dir "$target"
mkdir -p manifests/crds/kuadrant
"$target/debug/limitador-adapter" crd >manifests/crds/tokenratelimitpolicies.yaml
"$target/debug/limitador-adapter" crd --group kuadrant.io >manifests/crds/kuadrant/tokenratelimitpolicies.yaml
