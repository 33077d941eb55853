"""Fails if a type name is declared more than once outside tests without a reason in scripts/names.txt."""
import collections, re, subprocess, sys

declared = collections.defaultdict(list)
for file in subprocess.check_output(["git", "ls-files", "*.rs"], text=True).split():
    if re.search(r"(^|/)(tests|benches)(/|\.rs)", file):
        continue
    code = re.split(r"\n#\[cfg\(test\)\]\nmod tests", open(file).read())[0]
    for number, line in enumerate(code.split("\n"), 1):
        if found := re.match(r"\s*(?:pub(?:\([^)]*\))?\s+)?(?:struct|enum|trait|union)\s+([A-Z]\w*)", line):
            declared[found[1]].append(f"{file}:{number}")

twice = {name: places for name, places in declared.items() if len(places) > 1}
allowed = {line.split(":")[0] for line in open("scripts/names.txt") if line.strip() and not line.startswith("#")}
for name in sorted(twice.keys() - allowed):
    print(f"{name} is declared {len(twice[name])} times: {', '.join(twice[name])}", file=sys.stderr)
for name in sorted(allowed - twice.keys()):
    print(f"{name} is declared once: take it out of scripts/names.txt", file=sys.stderr)
sys.exit(twice.keys() != allowed)
