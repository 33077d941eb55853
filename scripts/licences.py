"""Fails if deny.toml does not allow a dependency's licence. Reads the output of `cargo metadata` from stdin."""
import json, re, sys

allowed = set(re.findall(r'"([^"]+)"', re.search(r"allow = \[(.*?)\]", open("deny.toml").read(), re.S)[1]))


def fits(expression):
    """Evaluates an SPDX expression with AND, OR, WITH and parentheses. A slash is an older form of OR."""
    words = re.sub(r"([\w.+-]+) WITH ([\w.-]+)", r"\1_WITH_\2", expression.replace("/", " OR "))
    terms = re.findall(r"[()]|[\w.+-]+", words)
    python = [{"AND": "and", "OR": "or"}.get(t, t if t in "()" else str(t.replace("_WITH_", " WITH ") in allowed)) for t in terms]
    return eval(" ".join(python), {})  # The text contains only and, or, parentheses, True and False.


packages = [p for p in json.load(sys.stdin)["packages"] if p["source"]]
bad = [f"{p['name']} {p['version']}: {p['license']}" for p in packages if not p["license"] or not fits(p["license"])]
print("\n".join(bad), file=sys.stderr, end="\n" if bad else "")
sys.exit(bool(bad) or not packages)
