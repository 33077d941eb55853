#!/usr/bin/env python3
"""Parses each evasion's body with servers in Python, Go and Node, and writes the results into its file.

usage: e2e/evasions/readings.py [--check]    --check: changes nothing, and fails if a file would change

Needs python3, go and node. The bodies are decoded before the servers parse them. A wrong content-encoding is ignored,
as by a server that reads the raw bytes. Tests read the results from the files.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent
SERVERS = {
    "python": [sys.executable, str(HERE / "servers/read.py")],
    "go": ["go", "run", str(HERE / "servers/read.go")],
    "node": ["node", str(HERE / "servers/read.js")],
}
# Fields that servers do not pass to the model, and fields that only describe other fields.
NOT_TEXT = {"model", "modelid", "user", "metadata", "stream", "max_tokens", "type", "role"}


def decoded(headers, sent, plain):
    """Returns the body that a server parses."""
    labels = [line.split(":", 1)[1] for line in headers.splitlines() if line.lower().startswith("content-encoding:")]
    body = sent
    for label in reversed(",".join(labels).lower().split(",")):
        label = label.strip()
        try:
            if label in ("gzip", "x-gzip"):
                # Decodes as much as possible.
                body = zlib.decompressobj(47).decompress(body)
            elif label == "deflate":
                wrapped = body[:1] == b"\x78"
                body = zlib.decompress(body, 15 if wrapped else -15)
            elif label in ("br", "zstd") and sent != plain:
                body = plain
        except (OSError, zlib.error):
            continue
    return body


def characters(value):
    """Counts the characters that may be prompt text."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(characters, value))
    if isinstance(value, dict):
        inside = (characters(inner) for key, inner in value.items() if not is_known(key, inner))
        return sum(inside)
    return 0


def is_known(key, value):
    return key.lower() in NOT_TEXT and not (isinstance(value, str) and len(value) > 600)


def whole(value):
    """Parses a number of tokens as lenient validators such as pydantic do."""
    try:
        number = float(value) if not isinstance(value, bool) else 0
        return int(number) if number == int(number) and 0 < number < 2**53 else None
    except (TypeError, ValueError, OverflowError):
        return None


def reading(answer):
    if "error" in answer:
        return {"error": answer["error"][:80]}
    found = {}
    if answer.get("model") is not None:
        model = answer["model"]
        found["model"] = model[:40] if isinstance(model, str) else model
    if answer.get("stream") is not None:
        found["stream"] = answer["stream"]
    found["text"] = characters(answer["document"])
    most = whole(answer.get("max_tokens"))
    if most is not None:
        found["output"] = most * (whole(answer.get("n")) or 1)
    return found


def block(readings):
    lines = (f"  {name}: {json.dumps(readings[name], ensure_ascii=True)}\n" for name in SERVERS)
    return "readings:\n" + "".join(lines)


def main():
    check = "--check" in sys.argv[1:]
    stale = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        command = ["cargo", "run", "-q", "-p", "e2e", "--bin", "evasions", "--", str(folder)]
        subprocess.run(command, check=True, cwd=HERE.parent.parent)
        names = sorted(str(path.relative_to(folder))[: -len(".sent")] for path in folder.glob("*/*.sent"))
        for name in names:
            files = [folder / f"{name}.{kind}" for kind in ("headers", "sent", "plain")]
            headers, sent, plain = files[0].read_text(), files[1].read_bytes(), files[2].read_bytes()
            (folder / f"{name}.parsed").write_bytes(decoded(headers, sent, plain))
        paths = "".join(f"{folder / name}.parsed\n" for name in names)
        answers = {}
        for server, command in SERVERS.items():
            done = subprocess.run(command, input=paths, capture_output=True, text=True, check=True)
            answers[server] = [json.loads(line) for line in done.stdout.splitlines()]
            assert len(answers[server]) == len(names), server
    for at, name in enumerate(names):
        file = HERE / f"{name}.yaml"
        text = file.read_text()
        own = re.sub(r"readings:\n(  .*\n)*", "", text)
        new = own + block({server: reading(answers[server][at]) for server in SERVERS})
        if new != text:
            stale.append(name)
            if not check:
                file.write_text(new)
    print(f"{len(names)} evasions, {len(stale)} {'are out of date' if check else 'written'}")
    if check and stale:
        sys.exit("out of date: " + " ".join(stale))


if __name__ == "__main__":
    main()
