"""Runs an SDK's cases, and prints one line of JSON for each.

usage: run.py SDK '{"case": "http://127.0.0.1:PORT", ...}'
"""
import importlib
import json
import sys
import time

sdk = importlib.import_module(f"sdk.{sys.argv[1]}")


def play(case, base):
    if case in ("short", "long"):
        # The first call uses up the limit.
        sdk.plain(base)
        return sdk.plain(base)
    return sdk.plain(base) if case == "never" else getattr(sdk, case)(base)


for case, base in json.loads(sys.argv[2]).items():
    begun = time.monotonic()
    try:
        result = {"text": play(case, base)}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"case": case, "seconds": time.monotonic() - begun, **result}), flush=True)
