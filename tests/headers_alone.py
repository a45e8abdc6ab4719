#!/usr/bin/env python3
"""Compiles each public header on its own, twice over (so it needs nothing before it and guards itself).
usage: headers_alone.py <source folder> <include folder> <compiler> [flag...]"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys


def main():
    root, include, compiler, *flags = sys.argv[1:]
    root = pathlib.Path(root)
    headers = ["tutti.h", "config.h"]
    for part in ("core", "autograd", "nn", "func"):
        headers += [p.relative_to(root).as_posix() for p in sorted((root / part).rglob("*.h"))]
    # core/kernels is internal; core/eigen.h needs the user's Eigen.
    headers = [h for h in headers if not h.startswith("core/kernels/") and h != "core/eigen.h"]

    def compile_alone(header):
        text = f"#include <tutti/{header}>\n" * 2
        command = [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion",
                   "-Wno-sign-conversion", "-Werror", f"-I{include}", *flags, "-x", "c++", "-"]
        return subprocess.run(command, input=text, text=True, capture_output=True, check=False)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for header, result in zip(headers, pool.map(compile_alone, headers)):
            if result.returncode != 0:
                failed += 1
                print(f"<tutti/{header}> does not compile alone:\n{result.stderr[:3000]}")
    print(f"{len(headers) - failed} of {len(headers)} public headers compile alone")
    return 1 if failed or len(headers) < 3 else 0


if __name__ == "__main__":
    sys.exit(main())
