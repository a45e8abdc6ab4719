#!/usr/bin/env python3
"""One table: the training steps of bench/train_step.h in tutti, in the Eigen loop, and in PyTorch and JAX, in
microseconds; the engines take turns, medians count. Behind it, which part of the cores' multiply-add peak the last of
tutti's ways reaches, and how many times as fast it is as each other engine: a ratio that falls short of its goal is
marked "<", unless the part of the peak reaches its own. Called by run.sh, which builds and installs what is needed.
usage: compare.py BUILD PACKAGES [--threads N] [--turns N] [--engines a,b] [--cases PART_OF_A_NAME]"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
GOALS = {"torch": 4, "torch.compile": 1.5, "jax": 1.5}
PEAK_GOAL = 0.6


class Peer:
    """A worker process of one engine."""

    def __init__(self, engine, packages, folder, threads):
        package = packages / engine.split(".")[0]
        env = dict(os.environ, PYTHONPATH=str(package), JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            env[name] = str(threads)
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", engine, folder, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def time(self, case):
        """Microseconds, or a text that says why there are none."""
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        try:
            return float(answer)
        except ValueError:
            return answer.removeprefix("- ") or "the process ended"

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Tutti:
    """A row of train_step_bench."""

    def __init__(self, program, way, threads):
        self.program, self.suffix = program, f"/{way}/threads:{threads}"
        self.clock = "cpu_time" if threads == 1 else "real_time"

    def row(self, name):
        out = subprocess.run(
            [self.program, f"--benchmark_filter=^{name}", "--benchmark_min_time=0.1", "--benchmark_format=json"],
            check=True, text=True, capture_output=True).stdout
        return json.loads(out)["benchmarks"][0]

    def time(self, case):
        row = self.row(case + self.suffix)
        return row.get("error_message") or row[self.clock]

    def flops(self, name):
        """Thousand millions a second of this thread's processor time."""
        row = self.row(name)
        return row["GFLOP/s"] * row["real_time"] / row[self.clock]

    def close(self):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("packages", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--engines", default="torch,torch.compile,jax")
    parser.add_argument("--cases", default="")
    args = parser.parse_args()
    bench = args.build / "bench" / "train_step_bench"

    # As many cores as threads: that bounds engines whose threads cannot be counted otherwise.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads:])
    listed = subprocess.run([bench, "--benchmark_list_tests"], check=True, text=True, capture_output=True).stdout
    rows = re.findall(r"^(M[^/\n]*)/(\w+)/threads:1", listed, re.M)
    cases = [c for c in dict.fromkeys(case for case, _ in rows) if args.cases in c]
    ways = [w for w in dict.fromkeys(way for _, way in rows) if w == "eigen" or not w.startswith("prototype")]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.build / "bench" / "gates_train_step", "--data", folder], check=True)
        engines = {}
        for way in ways:
            threads = 1 if way == "eigen" else args.threads
            engines["Eigen loop" if way == "eigen" else f"tutti {way}"] = Tutti(bench, way, threads)
        for engine in filter(None, args.engines.split(",")):
            engines[engine] = Peer(engine, args.packages, folder, args.threads)
        clock = "processor time" if args.threads == 1 else "time"
        print(f"{clock} of a training step in microseconds, {args.threads} thread(s) (Eigen loop: 1)")
        print(f"{'':28}" + "".join(f"{name:>20}" for name in engines))
        reasons = []
        compared = []  # the second table
        best = engines[f"tutti {ways[-1]}"]
        for case in cases:
            times = {name: [] for name in engines}
            parts = []
            for _ in range(args.turns):
                parts.append(best.flops(case + best.suffix) / best.flops("peak") / args.threads)
                for name, engine in engines.items():
                    if times[name] and isinstance(times[name][-1], str):
                        continue
                    times[name].append(engine.time(case))
            cells = []
            for name, found in times.items():
                if isinstance(found[-1], str):
                    reasons.append(f"{case}, {name}: {found[-1]}")
                    cells.append("-")
                else:
                    cells.append(f"{statistics.median(found):.1f}")
            print(f"{case:28}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
            # Against the fastest of our ways; the part of the peak was measured with the last one.
            last = times[f"tutti {ways[-1]}"]
            measured = [w for w in ways if w != "eigen" and not isinstance(times[f"tutti {w}"][-1], str)]
            way = min(measured, key=lambda w: statistics.median(times[f"tutti {w}"]), default=ways[-1])
            ours = times[f"tutti {way}"]
            part = statistics.median(parts)
            if not isinstance(ours[-1], str) and not isinstance(last[-1], str):
                part *= statistics.median(last) / statistics.median(ours)
            ratios = []
            for name, found in times.items():
                if isinstance(found[-1], str) or isinstance(ours[-1], str):
                    ratios.append("-")
                    continue
                ratio = statistics.median(a / b for a, b in zip(found, ours))
                short = ratio < GOALS.get(name, 0) and part < PEAK_GOAL
                ratios.append(f"{ratio:.2f}" + ("<" if short else ""))
            compared.append(f"{case:28}{way:>14}{part:8.2f}" + "".join(f"{r:>20}" for r in ratios))
        print("\ntheir time over that of tutti's fastest way, which reaches this part of the peak")
        print(f"{'':28}{'way':>14}{'peak':>8}" + "".join(f"{name:>20}" for name in engines))
        print("\n".join(compared))
        for reason in reasons:
            print(reason)
        for engine in engines.values():
            engine.close()


if __name__ == "__main__":
    main()
