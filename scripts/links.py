"""Fails if a document refers to a project file or a heading that does not exist."""
import os, re, subprocess, sys

documents = subprocess.check_output(["git", "ls-files", "*.md"], text=True).split()
roots = {path.split("/")[0] for path in subprocess.check_output(["git", "ls-files"], text=True).split() if "/" in path}
broken = []


def headings(document):
    """Returns the anchors of a document in GitHub's format."""
    titles = re.findall(r"^#+ (.*)$", open(document).read(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


for document in documents:
    text = open(document).read()
    folder = os.path.dirname(document)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    # A pattern in a code span is not a link.
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = os.path.normpath(os.path.join(folder, path)) if path else document
        if not os.path.exists(file):
            broken.append(f"{document}: {target}: there is no {file}")
        elif anchor and file.endswith(".md") and anchor not in headings(file):
            broken.append(f"{document}: {target}: {file} has no such heading")
    if document == "CHANGELOG.md":
        continue  # A changelog may name files that no longer exist.
    for path in re.findall(r"`([\w.-]+/[\w./-]*)`", prose):
        exists = any(os.path.exists(os.path.join(base, path)) for base in (".", folder))
        placeholder = re.search(r"(^|/)[A-Z]+(\.|$)", path) and "NAME" in path
        if path.split("/")[0] in roots and not (exists or placeholder):
            broken.append(f"{document}: `{path}` does not exist")

print("\n".join(broken), file=sys.stderr, end="\n" if broken else "")
sys.exit(bool(broken))
