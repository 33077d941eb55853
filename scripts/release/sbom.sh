# Sourced: the software bill of materials of a release.
cyclonedx_pin=0.5.9

need_cyclonedx() {
  cyclonedx="$cache/cargo-cyclonedx-$cyclonedx_pin"
  [ ! -x "$cyclonedx/bin/cargo-cyclonedx" ] || return 0
  need_cargo
  say "building cargo-cyclonedx $cyclonedx_pin, once (2 to 5 minutes)"
  quietly cargo install --locked "cargo-cyclonedx@$cyclonedx_pin" --root "$cyclonedx" --target-dir "$cyclonedx/target" \
    || die "cargo-cyclonedx could not be built"
  rm -rf "$cyclonedx/target"
}

# sbom OUT ARTEFACT...: writes the crates of the module and the adapter, the libraries of the page and the packages of
# the image (NAME.packages) into one CycloneDX document, with the digests of the artefacts.
sbom() {
  local out="$1" sources
  shift
  need_cyclonedx
  # cargo-cyclonedx writes beside each Cargo.toml.
  sources="$(mktemp -d)"
  git ls-files -z | tar --create --null --files-from=- --ignore-failed-read | tar --extract --directory "$sources"
  cyclonedx_of "$sources/filter" "$wasm_target"
  cyclonedx_of "$sources/limitador-adapter" x86_64-unknown-linux-gnu
  python3 scripts/release/sbom.py "$sources" "$@" >"$out"
  rm -rf "$sources"
}

# cyclonedx_of FOLDER TARGET
cyclonedx_of() {
  PATH="$cyclonedx/bin:$PATH" quietly cargo cyclonedx --quiet --manifest-path "$1/Cargo.toml" --format json \
    --spec-version 1.5 --target "$2" --override-filename "sbom-$2" || die "cargo-cyclonedx failed"
}

# check_sbom FILE
check_sbom() {
  local place
  place="$cache/check-sbom-$(sha256sum scripts/release/requirements.txt | cut -c1-16)"
  if [ ! -d "$place" ]; then
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3 python3-venv
    rm -rf "$place.new"
    python3 -m venv "$place.new"
    quietly "$place.new/bin/pip" install --disable-pip-version-check --no-deps -r scripts/release/requirements.txt \
      || die "the validator of bills of materials could not be installed"
    mv "$place.new" "$place"
  fi
  "$place/bin/python" scripts/release/check_sbom.py "$1"
}
