#!/usr/bin/env python3
"""Checks that the library shares no symbol with an application's own Eigen or Highway, which are compiled in under
names of our own, and that it needs nothing of theirs. usage: own_symbols.py <library> [nm]"""
import re
import subprocess
import sys

FOREIGN = re.compile(r"\b(hwy|Eigen)::")


def main():
    library = sys.argv[1]
    nm = sys.argv[2] if len(sys.argv) > 2 else "nm"
    # -g: what other files see, weak symbols included; also what is undefined.
    listing = subprocess.run([nm, "-g", "-C", library], text=True, capture_output=True, check=True).stdout
    lines = [line for line in listing.splitlines() if " " in line]
    shared = sorted({line for line in lines if FOREIGN.search(line)})
    print("\n".join(shared[:20]) or f"{len(lines)} symbols, none of Eigen's or Highway's")
    return 1 if shared or len(lines) < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
