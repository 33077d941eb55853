#!/usr/bin/env python3
"""Builds an OCI image for `ctr images import`, with the contents of a folder as its only layer.

usage: image.py OUT.tar NAME FOLDER [--config JSON]
"""
import argparse
import hashlib
import io
import json
import os
import platform
import tarfile

arguments = argparse.ArgumentParser()
for name in ("out", "name", "folder"):
    arguments.add_argument(name)
arguments.add_argument("--config", default="{}", help="Entrypoint, Cmd, Env, User and WorkingDir")
arguments = arguments.parse_args()
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def as_root(member):
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def descriptor(kind, digest, size, **more):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": size, **more}


layer = arguments.out + ".layer"
with tarfile.open(layer, "w") as tar:
    for entry in sorted(os.listdir(arguments.folder)):
        tar.add(os.path.join(arguments.folder, entry), entry, filter=as_root)
with open(layer, "rb") as file:
    layer_digest = hashlib.file_digest(file, "sha256").hexdigest()

settings = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], **json.loads(arguments.config)}
config = json.dumps({
    "architecture": ARCHITECTURE,
    "os": "linux",
    "config": settings,
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
}).encode()
config_digest = hashlib.sha256(config).hexdigest()
manifest = json.dumps({
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": descriptor("config.v1+json", config_digest, len(config)),
    "layers": [descriptor("layer.v1.tar", layer_digest, os.path.getsize(layer))],
}).encode()
manifest_digest = hashlib.sha256(manifest).hexdigest()
index = json.dumps({
    "schemaVersion": 2,
    "manifests": [descriptor("manifest.v1+json", manifest_digest, len(manifest),
                             platform={"architecture": ARCHITECTURE, "os": "linux"},
                             annotations={"io.containerd.image.name": arguments.name})],
}).encode()

with tarfile.open(arguments.out, "w") as tar:
    for name, content in (
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", index),
        (f"blobs/sha256/{config_digest}", config),
        (f"blobs/sha256/{manifest_digest}", manifest),
    ):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    tar.add(layer, f"blobs/sha256/{layer_digest}", filter=as_root)
os.remove(layer)
