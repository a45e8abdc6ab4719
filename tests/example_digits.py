#!/usr/bin/env python3
"""Runs examples/ensemble_digits with small settings and checks what it prints, writes and refuses.
usage: example_digits.py <digits.csv> <program> [argument...]"""
import json
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

DATA, *PROGRAM = sys.argv[1:]  # an emulator may stand before the program
SMALL = ["--members", "4", "--hidden", "16", "--epochs", "2"]
RESULT = re.compile(
    r"RESULT ensemble_accuracy=(\d\.\d{4}) member_accuracy=(\d\.\d{4}) ensemble_nll=(\d+\.\d{4})"
    r" member_nll=(\d+\.\d{4}) vmapped_s=(\d+\.\d{4}) loop_s=(\d+\.\d{4})")
failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("FAILED:", what)


def run(*arguments):
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)


def result_of(done):
    found = RESULT.fullmatch(done.stdout.rstrip("\n").split("\n")[-1])
    check(found is not None, f"the last line is a RESULT line: {done.stdout[-200:]!r} {done.stderr!r}")
    return tuple(map(float, found.groups())) if found else (0.0,) * 6


def train(folder, *arguments):
    """A run that must succeed: the numbers of its RESULT line and the bytes of its tensors."""
    done = run("--data", DATA, "--out", folder, *SMALL, *arguments)
    check(done.returncode == 0, f"{arguments}: exit code 0, got {done.returncode}: {done.stderr}")
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    check(names == ["ensemble.safetensors", "report.html"], f"{arguments}: both files, got {names}")
    check("\r" not in done.stdout and "\x1b" not in done.stdout, "plain lines when stdout is no terminal")
    return result_of(done), (folder / "ensemble.safetensors").read_bytes() if names else b"", done.stdout


def check_tensors(content, members, hidden):
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    notes = header.pop("__metadata__")
    check(notes["members"] == str(members), f"metadata names the members: {notes}")
    shapes = {name: entry["shape"] for name, entry in header.items()}
    check(list(shapes.items()) == [("l1.weight", [members, hidden, 64]), ("l1.bias", [members, hidden]),
                                   ("l2.weight", [members, 10, hidden]), ("l2.bias", [members, 10])],
          f"stacked parameters in order: {shapes}")
    end = max(entry["data_offsets"][1] for entry in header.values())
    check(len(content) == 8 + length + end, "the file ends with the last tensor")


def check_report(path, accuracy):
    text = path.read_text(encoding="utf-8")
    root = ET.fromstring(text)  # every tag is closed
    tags = [e.tag.split("}")[-1] for e in root.iter()]
    check("script" not in tags and "img" not in tags, "the report runs and loads nothing")
    check(not re.search(r"(?:src|href)=\"(?!data:,)|url\(|@import", text), "the report refers to nothing outside")
    classes = [e.get("class", "") for e in root.iter()]
    check(classes.count("card") == 10, "ten disputed digits")
    check(tags.count("figure") == 4 and tags.count("svg") == 4 + 2 * 10, "four charts, ten pictures, ten votes")
    check(f"{100 * accuracy:.2f}" in text, "the report names the ensemble's accuracy")
    check("prefers-color-scheme: dark" in text, "the report knows dark mode")
    check(not re.search(r"\b(?:nan|inf)\b", text), "no number is missing")


def good_runs(tmp):
    first, tensors, out = train(tmp / "a", "--threads", "1")
    check(len(re.findall(r"^epoch \d/2  loss \d+\.\d{4}  accuracy \d\.\d{4}  ", out, re.M)) == 2,
          f"one line an epoch: {out!r}")
    check(0.7 < first[0] <= 1, f"the ensemble has learned: {first}")
    check(first[1] <= first[0] + 0.02 and first[2] < first[3], f"it beats its members: {first}")
    check(first[4] > 0 and first[5] > 0, f"times are printed: {first}")
    check_tensors(tensors, 4, 16)
    check_report(tmp / "a" / "report.html", first[0])
    again, tensors2, _ = train(tmp / "b", "--threads", "2")
    check(again[:4] == first[:4] and tensors2 == tensors, "the same bits with two threads")
    again, tensors2, _ = train(tmp / "b", "--threads", "1")
    check(again[:4] == first[:4] and tensors2 == tensors, "the same bits again, over older files")
    test_rows = int(re.search(r"(\d+) to test with", out).group(1))
    for chunk in 1, 3:  # rounding may differ, so one test picture may
        part, _, _ = train(tmp / "b", "--chunk", chunk)
        check(all(abs(part[i] - first[i]) <= 1.01 / test_rows for i in (0, 1)),
              f"the same accuracies, {chunk} members at a time: {part} and {first}")
    _, other, _ = train(tmp / "b", "--seed", "1")
    check(other != tensors, "another seed trains another ensemble")

    one, tensors, _ = train(tmp / "c" / "deeper", "--members", "1", "--epochs", "1")
    check(one[0] == one[1] and one[2] == one[3], f"one member is its own ensemble: {one}")
    check_tensors(tensors, 1, 16)
    check_report(tmp / "c" / "deeper" / "report.html", one[0])
    _, larger, _ = train(tmp / "d", "--members", "12", "--batch", "500", "--lr", "0.01")
    check_tensors(larger, 12, 16)

    done = run("--help")
    for option in "--members --hidden --epochs --seed --chunk --data --out --threads --help".split():
        check(option in done.stdout, f"--help explains {option}")
    check(done.returncode == 0, "--help succeeds")


def on_a_terminal(tmp):
    try:
        parent, child = pty.openpty()
    except OSError as error:  # a bare chroot has none
        print("no terminal to test the progress bar on:", error)
        return
    with subprocess.Popen([*PROGRAM, "--data", DATA, "--out", str(tmp / "t"), *SMALL], stdout=child) as process:
        os.close(child)
        out = b""
        while True:
            try:
                block = os.read(parent, 4096)
            except OSError:  # how Linux reports the end
                break
            if not block:
                break
            out += block
    os.close(parent)
    check(process.returncode == 0, "runs on a terminal")
    check(b"\r\x1b[K[############............] epoch 1/2" in out, f"a progress bar on a terminal: {out[:300]!r}")


def refused_data(tmp):
    lines = pathlib.Path(DATA).read_text(encoding="ascii").splitlines(keepends=True)

    def replaced(number, field, value):
        fields = lines[number - 1].rstrip("\n").split(",")
        fields[field] = value
        return "".join(lines[:number - 1] + [",".join(fields) + "\n"] + lines[number:])

    cases = {
        "empty": ("", 1, "copied in full"),
        "header": ("a,b\n", 1, "right file"),
        "short_line": ("".join(lines[:2]) + "1,2,3\n" + "".join(lines[2:]), 3, "repair or remove"),
        "first_line": ("1,2,3\n" + "".join(lines), 1, "repair or remove"),
        "long_line": (lines[0].rstrip("\n") + ",0\n" + "".join(lines[1:]), 1, "repair or remove"),
        "text": (replaced(2, 5, "seven"), 2, "repair or remove"),
        "hole": (replaced(9, 5, ""), 9, "fill it in"),
        "prose": ("It was a dark night.\nNothing happened.\n", 2, "repair or remove"),
        "cut": ("".join(lines)[:-40], len(lines), "copy it again"),
        "label": (replaced(7, 64, "10"), 7, "repair or remove"),
        "half_label": (replaced(7, 64, "3.5"), 7, "repair or remove"),
        "grey": (replaced(5, 0, "17"), 5, "repair or remove"),
        "nan": (replaced(5, 0, "nan"), 5, "repair or remove"),
        "semicolons": ("".join(lines).replace(",", ";"), 2, "delimiter"),
        "too_few": ("".join(lines[:1]), None, "at least 50"),
    }
    paths = {}
    for name, (content, line, cure) in cases.items():
        paths[tmp / f"{name}.csv"] = (line, cure)
        (tmp / f"{name}.csv").write_text(content, encoding="ascii")
    (tmp / "binary.csv").write_bytes(bytes(range(256)) * 64)
    paths[tmp / "binary.csv"] = (1, "export")
    (tmp / "zeros.csv").write_bytes(lines[0].encode() + bytes(5000))
    paths[tmp / "zeros.csv"] = (2, "export")
    paths[tmp / "missing.csv"] = (None, "check the path")
    paths[tmp] = (None, "folder")

    for path, (line, cure) in paths.items():
        folder = tmp / "refused"
        done = run("--data", path, "--out", folder, *SMALL)
        name = path.name
        check(done.returncode == 1, f"{name}: exit code 1, got {done.returncode}")
        check(done.stderr.count("\n") == 1, f"{name}: one line of message, got {done.stderr!r}")
        check(done.stderr.isprintable() or done.stderr[:-1].isprintable(), f"{name}: printable: {done.stderr!r}")
        if name != "too_few.csv":
            where = f"{path}:{line}:" if line else str(path)
            check(where in done.stderr, f"{name}: the message has {where}: {done.stderr!r}")
        check(cure in done.stderr, f"{name}: the message has {cure!r}: {done.stderr!r}")
        check(not folder.exists(), f"{name}: nothing is written")


def refused_output(tmp):
    (tmp / "file").write_text("mine")
    (tmp / "taken" / "report.html").mkdir(parents=True)
    for folder in (tmp / "file", tmp / "file" / "below", tmp / "taken", "/proc/tutti"):
        done = run("--data", DATA, "--out", folder, *SMALL)
        check(done.returncode == 1, f"--out {folder}: exit code 1, got {done.returncode}")
        check(str(folder) in done.stderr, f"--out {folder}: the message names it: {done.stderr!r}")
        check("epoch" not in done.stdout, f"--out {folder}: noticed before training")
    check((tmp / "file").read_text() == "mine", "a file in the way stays")
    check([p.name for p in (tmp / "taken").iterdir()] == ["report.html"], "no partial output")


def refused_arguments(tmp):
    for arguments in (["--members", "0"], ["--members", "many"], ["--epochs", "-1"], ["--hidden", "1.5"],
                      ["--lr", "0"], ["--threads", "-2"], ["--seed", "-1"], ["--unknown"], ["stray"]):
        done = run("--data", DATA, "--out", tmp / "e", *arguments)
        check(done.returncode not in (0, -6, -11), f"{arguments}: refused, got {done.returncode}")
        check(arguments[0].strip("-") in done.stderr, f"{arguments}: the message names it: {done.stderr!r}")
        check(not (tmp / "e").exists(), f"{arguments}: nothing is written")


def main():
    for part in (good_runs, on_a_terminal, refused_data, refused_output, refused_arguments):
        with tempfile.TemporaryDirectory(prefix="tutti_digits_") as tmp:
            part(pathlib.Path(tmp))
    print("failed" if failures else "all as expected")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
