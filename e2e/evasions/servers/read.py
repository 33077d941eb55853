"""What a lenient server in Python understands of a body: json.loads of its bytes, which takes UTF-16, NaN and, with
strict=False, control characters. Reads a path for each line of standard input, writes a line of JSON for each."""

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
