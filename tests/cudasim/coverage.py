#!/usr/bin/env python3
"""Reports which PTX instructions were executed, from the file CUDASIM_COVERAGE=file made (one or several processes).

usage: coverage.py FILE [--kernels REGEX] [--min PERCENT] [--missing] [--reasons FILE] [--brief]

--kernels  only kernels whose readable name matches
--min      exit status 1 if less than this part of all instructions was executed
--brief    no list of kernels
--missing  list the instructions never executed
--reasons  lines "REGEX<tab>reason"; the expression is searched in "kernel source-line instruction". An instruction that
           was not executed and matches none is an error; so is a line that matches nothing.
"""
import argparse
import re
import subprocess
import sys


def read(path):
    """[(executions, kernel, where, text)] in the order of the file."""
    rows = []
    with open(path) as lines:
        for line in lines:
            executions, kernel, _, where, _, text = line.rstrip('\n').split('\t')
            rows.append((int(executions), kernel, where, text))
    return rows


def readable(names):
    """Demangled names by mangled ones; the names themselves where c++filt is missing."""
    try:
        out = subprocess.run(['c++filt'], input='\n'.join(names), capture_output=True, text=True, check=True).stdout
        return dict(zip(names, out.split('\n')))
    except (OSError, subprocess.CalledProcessError):
        return {n: n for n in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file')
    parser.add_argument('--kernels', default='')
    parser.add_argument('--min', type=float, default=0)
    parser.add_argument('--missing', action='store_true')
    parser.add_argument('--reasons')
    parser.add_argument('--brief', action='store_true')
    args = parser.parse_args()

    rows = read(args.file)
    names = readable(sorted({r[1] for r in rows}))
    rows = [r for r in rows if re.search(args.kernels, names[r[1]])]
    kernels = {}
    for executions, kernel, _, _ in rows:
        done, total = kernels.get(kernel, (0, 0))
        kernels[kernel] = (done + (executions > 0), total + 1)
    for kernel, (done, total) in sorted(kernels.items(), key=lambda k: k[1][0] / k[1][1]):
        if done < total and not args.brief:
            print(f'{100 * done / total:5.1f} %  {done:5} of {total:5}  {names[kernel]}')

    failed = False
    missing = [(names[k], where, text) for n, k, where, text in rows if n == 0]
    if args.reasons:
        with open(args.reasons) as lines:
            reasons = [l.rstrip('\n').split('\t', 1) for l in lines if l.strip() and not l.startswith('#')]
        used = set()
        for kernel, where, text in missing:
            hits = [k for k, (pattern, _) in enumerate(reasons) if re.search(pattern, f'{kernel} {where} {text}')]
            used.update(hits)
            if not hits:
                print(f'no reason: {where}: {text}  in {kernel}')
                failed = True
        for k, (pattern, _) in enumerate(reasons):
            if k not in used:
                print(f'a reason that fits nothing: {pattern}')
                failed = True
    elif args.missing:
        for kernel, where, text in missing:
            print(f'{where}: {text}  in {kernel}')

    done, total = len(rows) - len(missing), len(rows)
    launched = sum(d > 0 for d, _ in kernels.values())
    percent = 100 * done / total if total else 0
    print(f'{launched} of {len(kernels)} kernels and functions, {done} of {total} PTX instructions executed: {percent:.1f} %')
    return 1 if failed or percent < args.min else 0


if __name__ == '__main__':
    sys.exit(main())
