"""The version of Weir, which only Cargo.toml declares, and the changelog.

version.py                  prints the version
version.py check [TAG]      fails if a file names another version; with a tag, also if the changelog has no date for it
version.py date YYYY-MM-DD  makes the changelog's `Unreleased` section that of the version
version.py changes          prints the changelog's section for the version, or `Unreleased`
"""
import datetime, re, subprocess, sys

VERSION = re.search(r'^\[workspace\.package\]\nversion = "(.*)"$', open("Cargo.toml").read(), re.M)[1]
CHANGELOG = "CHANGELOG.md"
UNRELEASED = "Unreleased"
# Files in which an image, an archive or a chart is named with its version.
NAMED = ["*.md", "docs", "manifests", "e2e/chart", "scripts/*.sh", ".github"]


def sections():
    """Returns the changelog's sections, newest first, as (version, date, text). `Unreleased` has no date."""
    parts = re.split(r"^## (.*)\n", open(CHANGELOG).read(), flags=re.M)[1:]
    for title, text in zip(parts[::2], parts[1::2]):
        heading = re.fullmatch(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", title)
        yield (*heading.groups(), text) if heading else (title, None, text)


def errors_of_changelog(tag):
    found = list(sections())
    if found[0][:2] != (UNRELEASED, None):
        yield f"{CHANGELOG}: the first section is {found[0][0]}, not {UNRELEASED}"
    for title, date, _ in found[1:]:
        if not date:
            yield f"{CHANGELOG}: expected `## VERSION (YYYY-MM-DD)`, not `## {title}`"
    numbers = [[int(part) for part in title.split(".")] for title, date, _ in found if date]
    if numbers != sorted(numbers, reverse=True) or any(it > [int(part) for part in VERSION.split(".")] for it in numbers):
        yield f"{CHANGELOG}: its versions do not descend from {VERSION}"
    if tag and tag != f"v{VERSION}":
        yield f"the tag is {tag}, but Cargo.toml declares {VERSION}"
    if tag and not any(title == VERSION for title, _, _ in found):
        yield f"{CHANGELOG}: no section for {VERSION}: run `python3 scripts/version.py date YYYY-MM-DD`"


def errors_of_files():
    chart = open("manifests/chart/Chart.yaml").read()
    for field in ("version", "appVersion"):
        named = re.search(rf"^{field}: (.*)$", chart, re.M)[1]
        if named != VERSION:
            yield f"manifests/chart/Chart.yaml: {field} is {named}"
    for file in subprocess.check_output(["git", "ls-files", "*Cargo.toml"], text=True).split():
        if literal := re.search(r'^\[package\]\n(?:.+\n)*?version = "(.*)"', open(file).read(), re.M):
            yield f"{file}: version is {literal[1]}, expected version.workspace = true"
    for file in subprocess.check_output(["git", "ls-files", *NAMED], text=True).split("\n"):
        if not file or file == CHANGELOG or not re.search(r"\.(md|ya?ml|sh|tpl|txt)$", file):
            continue
        for number, line in enumerate(open(file), 1):
            for named in re.findall(r"(?:limitador-adapter|weir|filter|weir-manifests)[:-]v?(\d+\.\d+\.\d+)", line):
                if named != VERSION:
                    yield f"{file}:{number}: {named}"


def check(tag=None):
    errors = [*errors_of_changelog(tag), *errors_of_files()]
    for error in errors:
        print(f"{error} (the version is {VERSION})", file=sys.stderr)
    sys.exit(bool(errors))


def date(day):
    datetime.date.fromisoformat(day)
    text = open(CHANGELOG).read()
    if f"\n## {VERSION} (" in text:
        sys.exit(f"{CHANGELOG} has a section for {VERSION}")
    with open(CHANGELOG, "w") as file:
        file.write(text.replace(f"## {UNRELEASED}\n", f"## {UNRELEASED}\n\n## {VERSION} ({day})\n", 1))


def changes():
    found = {title: text for title, _, text in sections()}
    print((found.get(VERSION) or found[UNRELEASED]).strip())


if __name__ == "__main__":
    commands = {"check": check, "date": date, "changes": changes}
    if len(sys.argv) == 1:
        print(VERSION)
    else:
        commands[sys.argv[1]](*sys.argv[2:])
