#!/usr/bin/env python3
"""Checks who includes whom: core nothing of ours, autograd core, nn core and autograd, func all three, cuda core;
and that public headers stay light. usage: include_rules.py <source folder>"""
import pathlib
import re
import sys

MAY_INCLUDE = {
    "core": {"core"},
    "autograd": {"autograd", "core"},
    "nn": {"nn", "autograd", "core"},
    "cuda": {"cuda", "core"},
    "func": {"func", "nn", "autograd", "core"},
}
HEAVY = re.compile(r"^(Eigen/|unsupported/Eigen|cuda|cublas|hwy/|iostream$|regex$)")
EIGEN_ONLY = "core/eigen.h"
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def problems(root):
    """Yields one line per broken rule; root is the source folder."""
    count = 0
    for part, allowed in MAY_INCLUDE.items():
        for path in sorted((root / part).rglob("*")):
            if path.suffix not in (".h", ".cpp", ".inc", ".cu", ".cuh"):
                continue
            count += 1
            name = path.relative_to(root).as_posix()
            internal = path.suffix == ".cpp" or name.startswith(("core/kernels/", "cuda/"))
            for form, target in INCLUDE.findall(path.read_text()):
                if form == '"':
                    yield f'{name}: write "{target}" as <tutti/...>'
                    continue
                pieces = target.split("/")
                if pieces[0] == "tutti" and len(pieces) > 2 and pieces[1] not in allowed:
                    yield f"{name}: {part} must not include {pieces[1]} (<{target}>)"
                if target == "tutti/tutti.h":
                    yield f"{name}: include the header that is meant, not <tutti/tutti.h>"
                if internal or name == EIGEN_ONLY:
                    continue
                if HEAVY.match(target):
                    yield f"{name}: a public header must not include <{target}>"
                if target.startswith("tutti/core/kernels/"):
                    yield f"{name}: <{target}> is internal and not installed"
                if target == "tutti/" + EIGEN_ONLY:
                    yield f"{name}: <{target}> needs Eigen; only users include it"
    everything = (root / "tutti.h").read_text()
    for _, target in INCLUDE.findall(everything):
        if HEAVY.match(target) or target == "tutti/" + EIGEN_ONLY:
            yield f"tutti.h: must not include <{target}>"
    if count == 0:
        yield f"no source file under {root}"


def main():
    found = list(problems(pathlib.Path(sys.argv[1])))
    print("\n".join(found) or "include rules hold")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
