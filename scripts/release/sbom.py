"""Merges what cargo-cyclonedx wrote for the filter and the adapter with the page's libraries and the image's packages.

usage: sbom.py SOURCES ARTEFACT... PACKAGES...   (ARCHITECTURE.packages: lines of `NAME VERSION ARCHITECTURE`)
"""
import base64, datetime, hashlib, json, os, re, sys, urllib.parse, uuid

sources, *files = sys.argv[1:]
artefacts = [file for file in files if not file.endswith(".packages")]
version = os.environ["WEIR_VERSION"]
created = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
# The triples for which the crates of a program were resolved. The adapter's are the same on arm64.
CRATES = {"filter": "wasm32-unknown-unknown", "limitador-adapter": "x86_64-unknown-linux-gnu"}
LOCK = "limitador-adapter/src/admin/page/vendor/package-lock.json"


def crates(program):
    """Returns the SBOM of a program, without the path of the sources."""
    text = open(f"{sources}/{program}/sbom-{CRATES[program]}.json").read()
    return json.loads(text.replace(f"path+file://{sources}", "path+file:///weir").replace(sources, "/weir"))


def library(path, entry):
    """Returns the component of a package in npm's lock file."""
    name = path.removeprefix("node_modules/")
    algorithm, digest = entry["integrity"].split("-", 1)
    return {
        "type": "library", "bom-ref": f"pkg:npm/{name}@{entry['version']}", "name": name, "version": entry["version"],
        "hashes": [{"alg": {"sha512": "SHA-512"}[algorithm], "content": base64.b64decode(digest).hex()}],
        "licenses": [{"expression": entry["license"]}], "purl": f"pkg:npm/{name}@{entry['version']}",
    }


def package(line):
    """Returns the component of a Debian package."""
    name, number, architecture = line.split()
    purl = f"pkg:deb/debian/{name}@{urllib.parse.quote(number)}?arch={architecture}&distro=debian-12"
    return {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl}


def artefact(path):
    """Returns the component of a file of the release."""
    digest = hashlib.file_digest(open(path, "rb"), "sha256").hexdigest()
    name = os.path.basename(path)
    return {
        "type": "file", "bom-ref": f"file:{name}", "name": name, "version": version,
        "hashes": [{"alg": "SHA-256", "content": digest}], "licenses": [{"expression": "Apache-2.0"}],
    }


components, depends = {}, {}
roots, tools = {}, []
for program in CRATES:
    bom = crates(program)
    tools = bom["metadata"]["tools"]
    root = bom["metadata"]["component"]
    # Its targets would repeat the name of the crate.
    root.pop("components", None)
    roots[program] = root["bom-ref"]
    for component in [root, *bom.get("components", [])]:
        components.setdefault(component["bom-ref"], component)
    for entry in bom.get("dependencies", []):
        depends.setdefault(entry["ref"], set()).update(entry.get("dependsOn", []))

libraries = [library(path, entry) for path, entry in json.load(open(f"{sources}/{LOCK}"))["packages"].items() if path]
depends[roots["limitador-adapter"]].update(it["bom-ref"] for it in libraries)
packages = [package(line) for file in files if file.endswith(".packages") for line in open(file)]
released = [artefact(path) for path in artefacts]
for component in [*libraries, *packages, *released]:
    components[component["bom-ref"]] = component

for path, component in zip(artefacts, released):
    program = "limitador-adapter" if "limitador-adapter" in component["name"] else "filter"
    depends[component["bom-ref"]] = {roots[program]}
weir = f"pkg:generic/weir@{version}"
depends[weir] = {it["bom-ref"] for it in [*released, *packages]}

document = {
    "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
    "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, weir + created.isoformat()).urn,
    "metadata": {
        "timestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"), "tools": tools,
        "component": {"type": "application", "bom-ref": weir, "name": "weir", "version": version, "purl": weir},
    },
    "components": sorted(components.values(), key=lambda it: it["bom-ref"]),
    "dependencies": [{"ref": ref, "dependsOn": sorted(depends[ref])} for ref in sorted(depends)],
}
text = json.dumps(document, indent=1, sort_keys=True)
assert not re.search(r"/(root|home|tmp)/", text), "the bill of materials names folders of this machine"
print(text)
