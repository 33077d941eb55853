"""Fails if a bill of materials is not valid CycloneDX 1.5, or if its graph misses a component.

usage: check_sbom.py FILE
"""
import json, sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = open(sys.argv[1]).read()
if error := JsonStrictValidator(SchemaVersion.V1_5).validate_str(text):
    sys.exit(f"{sys.argv[1]}: {error}")

document = json.loads(text)
root = document["metadata"]["component"]["bom-ref"]
components = {root, *(component["bom-ref"] for component in document["components"])}
depends = {entry["ref"]: entry["dependsOn"] for entry in document["dependencies"]}
reached, waiting = set(), [root]
while waiting:
    ref = waiting.pop()
    if ref not in reached:
        reached.add(ref)
        waiting += depends.get(ref, [])
if reached != components:
    sys.exit(f"{sys.argv[1]}: not connected or not listed: {sorted(reached ^ components)}")
print(len(components), "components")
