"""Whether every test that runs part of a test program selects a test case: a slow one that selects none would fail only
when the slow suite runs. usage: slow_filters.py BUILD_DIRECTORY"""
import json
import subprocess
import sys

listed = subprocess.check_output(["ctest", "--show-only=json-v1"], cwd=sys.argv[1])
filtered, empty = 0, []
for test in json.loads(listed)["tests"]:
    command = test.get("command", [])
    if not any(argument.startswith("--test-case=") for argument in command):
        continue
    cases = subprocess.run(command + ["--list-test-cases"], capture_output=True, text=True, timeout=60).stdout
    names = [line for line in cases.splitlines() if line and not line.startswith(("[doctest]", "==="))]
    filtered += 1
    if not names:
        empty.append(test["name"])
print(f"{filtered} tests run part of a program")
for name in empty:
    print(f"{name} selects no test case")
sys.exit(bool(empty) or not filtered)
