#!/usr/bin/env python3
"""The products and training steps of cuda_bench in PyTorch, on the same device; a JSON file for ratios.py.

usage: peers.py TUTTI.json DATA OUT.json [--device cuda] [--packages FOLDER] [--once]

TUTTI.json is what cuda_bench wrote: its names say what is measured. DATA is the folder of cuda_bench --data=DATA. A training
step must arrive at tutti's losses before it is timed. Exit status 77 if PyTorch is not there or sees no such device.
--packages  a folder with PyTorch's packages in "torch", as bench/peers/run.sh installs them
--once      everything runs once; times mean nothing
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))

SAMPLE = 5e-3  # seconds
SAMPLES = 9
NOT_THERE = 77


class Stopwatch:
    """Seconds of calls on a device: between two events around them, or on the CPU's clock."""

    def __init__(self, torch, device, once):
        self.torch, self.device, self.once = torch, device, once

    def seconds(self, f, calls):
        if self.device == "cpu":
            start = time.perf_counter()
            for _ in range(calls):
                f()
            return time.perf_counter() - start
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            f()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3

    def microseconds(self, f):
        """Of one call: the median of samples of at least SAMPLE seconds."""
        if self.once:
            return self.seconds(f, 1) * 1e6
        self.seconds(f, 3)
        calls = min(max(int(SAMPLE / max(self.seconds(f, 3) / 3, 1e-7)), 1), 1000)
        return statistics.median(self.seconds(f, calls) / calls for _ in range(SAMPLES)) * 1e6


def operands(torch, device, members, b, k, n, form):
    """As in ../gemm_layers.h."""

    def values(rows, columns):
        return torch.rand(members, rows, columns, device=device) - 0.5

    if form == "fwd":
        return values(b, k), values(n, k).mT
    if form == "dX":
        return values(b, n), values(n, k)
    if form == "dW":
        return values(b, n).mT, values(b, k)
    raise ValueError(f"the product {form} is not known")


def products(torch, stopwatch, name):
    """Microseconds of torch.bmm, and of a loop of torch.mm."""
    *sizes, form = name.split("/")[1:]
    x, y = operands(torch, stopwatch.device, *map(int, sizes), form)
    each = list(zip(x.unbind(), y.unbind()))

    def looped():
        for a, b in each:
            torch.mm(a, b)

    return {"bmm": stopwatch.microseconds(lambda: torch.bmm(x, y)), "looped": stopwatch.microseconds(looped)}


def steps(engines, stopwatch, path):
    """Microseconds of a training step in each engine, or a text that says why there are none."""
    import worker

    times = {}
    for name, engine in engines.items():
        try:
            times[name] = stopwatch.microseconds(worker.prepare(engine, path))
        except Exception as e:  # one engine that cannot must not end the comparison
            times[name] = f"{type(e).__name__}: {e}".replace("\n", " ")[:300]
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tutti", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--packages", type=pathlib.Path)
    parser.add_argument("--once", action="store_true")
    args = parser.parse_args()
    args.out.unlink(missing_ok=True)
    if args.packages:
        sys.path.insert(0, str(args.packages / "torch"))
    try:
        import torch
        import worker
    except ImportError as e:
        print(f"peers.py: nothing was measured: {e}", file=sys.stderr)
        return NOT_THERE
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"peers.py: nothing was measured: PyTorch {torch.__version__} sees no CUDA device", file=sys.stderr)
        return NOT_THERE
    torch.set_float32_matmul_precision("highest")  # no TF32, as in tutti

    engines = {"torch.func": worker.Torch(1, False, args.device)}
    if not args.once:  # compilers take minutes
        engines["torch.compile"] = worker.Torch(1, True, args.device)
        engines["torch.compile, graphs"] = worker.Torch(1, True, args.device, "reduce-overhead")
    stopwatch = Stopwatch(torch, args.device, args.once)
    benchmarks = json.loads(args.tutti.read_text())["benchmarks"]
    found = {"version": torch.__version__, "products": {}, "steps": {}}
    for name in dict.fromkeys(b["name"] for b in benchmarks):
        parts = name.split("/")
        if parts[0] == "float32":
            layer = "/".join(parts[:6])
            if layer not in found["products"]:
                found["products"][layer] = products(torch, stopwatch, layer)
        elif parts[0] not in found["steps"]:
            found["steps"][parts[0]] = steps(engines, stopwatch, args.data / f"{parts[0]}.safetensors")
    args.out.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
