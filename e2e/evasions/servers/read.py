"""Parses bodies like a lenient server in Python. json.loads accepts UTF-16 and NaN, and with strict=False also control
characters. Reads one path per line from stdin, and writes one line of JSON for each."""

import json
import sys

sys.setrecursionlimit(10_000)


def read(path):
    try:
        body = open(path, "rb").read()
        document = json.loads(body, strict=False)
    except (ValueError, RecursionError) as error:
        return {"error": str(error)}
    fields = document if isinstance(document, dict) else {}
    known = {name: fields.get(name) for name in ("model", "stream", "max_tokens", "n")}
    return {**known, "document": document}


for line in sys.stdin:
    try:
        print(json.dumps(read(line.rstrip("\n"))))
    except RecursionError as error:
        print(json.dumps({"error": str(error)}))
