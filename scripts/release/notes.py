"""Prints the notes of a release: what changed, what the files are, and what the tests ran with.

usage: notes.py FOLDER REGISTRY DIGESTS   (DIGESTS/NAME.digest: the digest of the image NAME)
"""
import os, pathlib, re, subprocess, sys

folder, registry, digests = sys.argv[1:]
version = os.environ["WEIR_VERSION"]
MEANINGS = {
    f"weir-{version}.wasm": "the filter",
    f"limitador-adapter-{version}-x86_64-linux": "the adapter and the command line, for glibc 2.34 or newer",
    f"limitador-adapter-{version}-aarch64-linux": "the same for arm64",
    f"limitador-adapter-{version}.oci.tar": "the adapter's image, as an OCI layout",
    f"filter-{version}.oci.tar": "the image with the filter's module, as an OCI layout",
    f"weir-{version}.tgz": "the Helm chart, with the module's digest",
    f"weir-manifests-{version}.tar.gz": "the plain manifests, with the module's digest",
    f"weir-{version}.cdx.json": "the bill of materials (CycloneDX)",
}
LATER = {"release-notes.md": "these notes", "SHA256SUMS": "the checksums of all other files"}

files = {path.name for path in pathlib.Path(folder).iterdir()} - LATER.keys()
if unknown := files - MEANINGS.keys():
    sys.exit(f"notes.py does not know {', '.join(sorted(unknown))}")
rows = [f"| `{name}` | {meaning} |" for name, meaning in {**MEANINGS, **LATER}.items() if name in files or name in LATER]
images = [
    f"- `{registry}/{path.stem}:{version}`, `{path.read_text().strip()}`" for path in sorted(pathlib.Path(digests).glob("*.digest"))
]
commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
changes = subprocess.check_output([sys.executable, "scripts/version.py", "changes"], text=True).strip()
table = re.search(r"^\|.*\n(?:\|.*\n)+", open("docs/compatibility.md").read(), re.M)[0]
# A relative link does not work outside the repository. GitHub's workflows set these variables.
repository = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}".format(**os.environ) if "GITHUB_REPOSITORY" in os.environ else None
target = rf"[\1]({repository}/blob/v{version}/\2)" if repository else r"\1"
changes = re.sub(r"\[([^\]]*)\]\((?!https?:)([^)]*)\)", target, changes)
print("\n".join([
    f"# Weir {version}", "", f"Built from the commit {commit}. `docs/installing.md` describes how to install it.", "",
    "## Files", "", "| File | What it is |", "|---|---|", *rows, "",
    "## Images", "", *images, "",
    "## What the tests ran with", "", table.strip(), "",
    "## Changes", "", changes,
]))
