#!/usr/bin/env python3
"""Tests coverage: test_coverage.py SELFTEST COVERAGE.PY. Runs two groups of the self-test into one file."""
import os
import subprocess
import sys
import tempfile

selftest, report = sys.argv[1:]


def executed(path):
    with open(path) as lines:
        return [int(line.split('\t', 1)[0]) for line in lines]


def run(path, group):
    environment = dict(os.environ, CUDASIM_COVERAGE=path)
    subprocess.run([selftest, group], env=environment, check=True, stdout=subprocess.DEVNULL)


with tempfile.TemporaryDirectory() as folder:
    one, two, both = (os.path.join(folder, n) for n in ('one', 'two', 'both'))
    run(one, 'block')
    run(two, 'elementwise')
    run(both, 'block')
    run(both, 'elementwise')
    a, b, c = executed(one), executed(two), executed(both)
    assert len(a) == len(b) == len(c) > 1000, 'the files list the same instructions'
    assert [x + y for x, y in zip(a, b)] == c, 'counts of two processes are added'
    assert any(x and not y for x, y in zip(a, b)) and any(y and not x for x, y in zip(a, b)), 'groups differ'
    assert subprocess.run([sys.executable, report, both, '--min', '1'], check=False).returncode == 0
    assert subprocess.run([sys.executable, report, both, '--min', '99'], check=False, stdout=subprocess.DEVNULL).returncode == 1
print('passed')
