#!/usr/bin/env python3
"""Checks that relative links in the Markdown files lead to a file, and anchors to a heading.
usage: doc_links.py <source folder>"""
import pathlib
import re
import sys

FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
SKIP = {"build", "out", ".git"}


def anchors(path):
    """The anchors of the headings of a Markdown file, as GitHub makes them."""
    found = {}
    names = set()
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", FENCE.sub("", path.read_text()), re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = found.get(name, 0)
        found[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def main():
    root = pathlib.Path(sys.argv[1])
    pages = [p for p in sorted(root.rglob("*.md")) if not SKIP & set(p.relative_to(root).parts)]
    links = 0
    broken = []
    for page in pages:
        text = CODE.sub("", FENCE.sub("", page.read_text()))
        for target in LINK.findall(text):
            if re.match(r"[a-z]+:", target):
                continue
            links += 1
            file, _, anchor = target.partition("#")
            where = (page.parent / file) if file else page
            if not where.exists():
                broken.append(f"{page.relative_to(root)}: no file {target}")
            elif anchor and where.suffix == ".md" and anchor not in anchors(where):
                broken.append(f"{page.relative_to(root)}: no heading for {target}")
    print("\n".join(broken + [f"{len(pages)} pages, {links} links, {len(broken)} broken"]))
    return 1 if broken or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
