#!/usr/bin/env python3
"""Checks that the kernels for dense tensors move packs of 16 bytes by one instruction each.

usage: check_packs.py FILE      the file CUDASIM_COVERAGE=FILE made

A kernel map_dense<V, F, R, A...> with V > 1 must load and store every operand whose pack has 16 bytes (V elements of its
type) by a vector instruction, and the tests must have executed it. Exit status 1 and a list of those that do not.
"""
import re
import sys

SIZES = {'b': 1, 'a': 1, 'h': 1, 's': 2, 't': 2, 'i': 4, 'j': 4, 'l': 8, 'm': 8, 'x': 8, 'y': 8, 'f': 4, 'd': 8}
KERNEL = re.compile(r'map_denseILi(\d+)E.*E([a-z])J((?:[a-z]|N\w*?4MaskE)*)EEEvj')
WIDE = re.compile(r'(ld|st)\.global(?:\.nc)?\.(?:v4\.[a-z]32|v2\.[a-z]64) ')


def operands(types):
    """Sizes of the element types of a mangled list; the enum Mask is a byte."""
    return [1 if t.startswith('N') or t.startswith('S') else SIZES[t]
            for t in re.findall(r'N\w*?4MaskE|[a-z]', types)]


def main():
    kernels = {}
    with open(sys.argv[1]) as lines:
        for line in lines:
            executions, kernel, _, _, _, text = line.rstrip('\n').split('\t')
            if 'map_dense' in kernel:
                kernels.setdefault(kernel, []).append((int(executions), text))
    checked = 0
    bad = []
    for kernel, instructions in sorted(kernels.items()):
        match = KERNEL.search(kernel)
        if not match:
            bad.append(f'{kernel}: its name was not understood')
            continue
        elements = int(match[1])
        if elements == 1:
            continue
        checked += 1
        stores = [SIZES[match[2]]].count(16 // elements)
        loads = operands(match[3]).count(16 // elements)
        done = [m[1] for n, text in instructions if n > 0 and (m := WIDE.match(text))]
        if done.count('st') < stores or done.count('ld') < loads:
            bad.append(f'{kernel}: {done.count("ld")} wide loads of {loads}, {done.count("st")} wide stores of {stores}')
    for line in bad:
        print(line)
    print(f'{checked - len(bad)} of {checked} kernels with packs move them by one instruction of 16 bytes')
    return 1 if bad or checked == 0 else 0


if __name__ == '__main__':
    sys.exit(main())
