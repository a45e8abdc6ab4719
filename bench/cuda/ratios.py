#!/usr/bin/env python3
"""Prints two tables in Markdown: products and training steps on the GPU, tutti's times and the others' over them.

usage: ratios.py TUTTI.json [PEERS.json]      what cuda_bench and peers.py wrote

PEERS.json may be missing, as it is where PyTorch is. Where a benchmark was repeated its median counts. "-" stands for what was
not measured; reasons follow the tables, and what failed a comparison of results makes the exit status 1.
"""
import json
import os
import re
import sys

ORDER = ["torch.func", "torch.compile", "torch.compile, graphs"]


def tutti_times(path):
    """({name: microseconds}, [what went wrong]) of a file of Google Benchmark's."""
    times, medians, errors = {}, {}, []
    with open(path) as file:
        rows = json.load(file)["benchmarks"]
    for row in rows:
        name = re.sub(r"/(iterations:\d+|repeats:\d+|manual_time)", "", row.get("run_name", row["name"]))
        if row.get("error_occurred"):
            errors.append(f"{name}: {row['error_message'].strip()}")
        elif row["time_unit"] != "us":
            errors.append(f"{name}: the time is in {row['time_unit']}, not in us")
        elif row["run_type"] == "iteration":
            times[name] = row["real_time"]
        elif row["aggregate_name"] == "median":
            medians[name] = row["real_time"]
    return {**times, **medians}, errors


def number(value):
    return f"{value:.1f}" if isinstance(value, (int, float)) else "-"


def ratio(value, base):
    if isinstance(value, (int, float)) and isinstance(base, (int, float)) and base > 0:
        return f"{value / base:.2f}"
    return "-"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def product_rows(times, peers):
    for layer in dict.fromkeys(name.rsplit("/", 1)[0] for name in times if name.startswith("float32/")):
        _, *sizes, form = layer.split("/")
        batched = times.get(f"{layer}/batched")
        peer = peers.get("products", {}).get(layer, {})
        yield [", ".join(sizes), form, number(batched), ratio(times.get(f"{layer}/looped"), batched),
               ratio(peer.get("bmm"), batched), ratio(peer.get("looped"), batched)]


def step_rows(times, peers, engines):
    for case in dict.fromkeys(name.split("/")[0] for name in times if not name.startswith("float32/")):
        compiled = times.get(f"{case}/compiled")
        found = peers.get("steps", {}).get(case, {})
        yield [case, number(compiled), ratio(times.get(f"{case}/eager"), compiled),
               *(ratio(found.get(engine), compiled) for engine in engines)]


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    if not os.path.exists(sys.argv[1]):
        print(f"Nothing was measured: there is no {sys.argv[1]}.")
        return 1
    times, errors = tutti_times(sys.argv[1])
    peers = {}
    if len(sys.argv) == 3 and os.path.exists(sys.argv[2]):
        with open(sys.argv[2]) as file:
            peers = json.load(file)
    engines = [e for e in ORDER if any(e in found for found in peers.get("steps", {}).values())]

    rows = list(product_rows(times, peers))
    print("Products in float32: microseconds of one strided-batched product, and how many times as long others take.\n")
    table(["members, rows, inputs, outputs", "form", "us", "loop of single products", "torch.bmm", "loop of torch.mm"], rows)
    steps = list(step_rows(times, peers, engines))
    print("Training steps: microseconds of a compiled step, and how many times as long others take.\n")
    table(["ensemble", "us", "eager", *engines], steps)
    if peers:
        print(f"PyTorch {peers['version']}.")
    else:
        print("PyTorch was not measured.")
    for case, found in peers.get("steps", {}).items():
        for engine, time in found.items():
            if isinstance(time, str):
                print(f"{case}, {engine}: {time}")
    for error in errors:
        print(f"FAILED: {error}")
    return 1 if errors or not rows or not steps else 0


if __name__ == "__main__":
    sys.exit(main())
