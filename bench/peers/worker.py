#!/usr/bin/env python3
"""The training steps of bench/train_step.h in another engine. usage: worker.py ENGINE FOLDER THREADS
ENGINE is torch (torch.func and a fused optimizer), torch.compile (the whole step) or jax (jit of the whole step).
FOLDER has a CASE.safetensors for each case, as `gates_train_step --data` writes it. Reads names of cases from standard
input, answers each with one line: the microseconds of a step (a median), or "- why not"."""
import functools
import json
import pathlib
import statistics
import sys
import time

import numpy

CHECKED_STEPS = 20
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def read_safetensors(path):
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    types = {"F32": numpy.float32, "I64": numpy.int64}
    return {
        name: numpy.frombuffer(data[begin:][slice(*t["data_offsets"])], types[t["dtype"]]).reshape(t["shape"]).copy()
        for name, t in json.loads(data[8:begin]).items()
        if name != "__metadata__"
    }


def layers_of(params):
    """[(weight name, bias name), ...] in the order of the layers."""
    numbers = sorted({int(name.split(".")[0]) for name in params})
    return [(f"{n}.weight", f"{n}.bias") for n in numbers]


class Torch:
    """torch.func, op by op; compiled: the same step and Adam's formulas in one torch.compile of this mode."""

    def __init__(self, threads, compiled, device="cpu", mode=None):
        import torch

        self.torch, self.compiled, self.device, self.mode = torch, compiled, device, mode
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)

    def make(self, params, x, y):
        torch, F = self.torch, self.torch.nn.functional
        params = {name: torch.from_numpy(p).to(self.device) for name, p in params.items()}
        x, y = torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device)
        layers = layers_of(params)

        def loss(params, x, y):
            for i, (weight, bias) in enumerate(layers):
                x = F.linear(torch.relu(x) if i else x, params[weight], params[bias])
            return F.mse_loss(x, y) if x.shape[-1] == 1 else F.cross_entropy(x, y)

        gradients = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(0, None, None))
        if not self.compiled:
            optimizer = torch.optim.Adam(list(params.values()), lr=LR, fused=True)

            def step():
                grads, losses = gradients(params, x, y)
                for name, p in params.items():
                    p.grad = grads[name]
                optimizer.step()
                return losses

            return step

        first = {name: torch.zeros_like(p) for name, p in params.items()}
        second = {name: torch.zeros_like(p) for name, p in params.items()}
        if self.mode:  # CUDA graphs write only into what keeps its address
            for tensors in (params, first, second):
                for t in tensors.values():
                    torch._dynamo.mark_static_address(t)

        @functools.partial(torch.compile, mode=self.mode)
        def update(params, first, second, corrections, x, y):
            grads, losses = gradients(params, x, y)
            for name, g in grads.items():
                first[name].lerp_(g, 1 - BETA1)
                second[name].mul_(BETA2).add_((1 - BETA2) * g * g)
                root = (second[name] * corrections[1]).sqrt() + EPS
                params[name].sub_(LR * corrections[0] * first[name] / root)
            return losses

        t = 0

        def step():
            nonlocal t
            t += 1
            corrections = torch.tensor([1 / (1 - BETA1**t), 1 / (1 - BETA2**t)]).to(self.device, non_blocking=True)
            with torch.no_grad():
                return update(params, first, second, corrections, x, y)

        return step

    def numbers(self, x):
        return x.cpu().numpy()


class Jax:
    """jit of vmap of value_and_grad and Adam's formulas; the old state is donated."""

    def __init__(self, threads):
        import jax  # its threads are bounded by the cores it may run on

        self.jax = jax

    def make(self, params, x, y):
        jax, jnp = self.jax, self.jax.numpy
        layers = layers_of(params)

        def loss(params, x, y):
            for i, (weight, bias) in enumerate(layers):
                x = jnp.maximum(x, 0) if i else x
                x = x @ params[weight].T + params[bias]
            if x.shape[-1] == 1:
                return jnp.mean((x - y) ** 2)
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1))

        def update(state, x, y):
            params, first, second, t = state
            losses, grads = jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None))(params, x, y)
            t = t + 1
            tree = jax.tree_util.tree_map
            first = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, grads)
            second = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, grads)
            c1, c2 = 1 / (1 - BETA1**t), 1 / (1 - BETA2**t)
            params = tree(lambda p, m, v: p - LR * c1 * m / (jnp.sqrt(v * c2) + EPS), params, first, second)
            return losses, (params, first, second, t)

        params = {name: jnp.array(p) for name, p in params.items()}
        zeros = [{name: jnp.zeros_like(p) for name, p in params.items()} for _ in range(2)]
        state = (params, *zeros, jnp.float32(0))
        x, y = jnp.array(x), jnp.array(y)
        compiled = jax.jit(update, donate_argnums=0)

        def step():
            nonlocal state
            losses, state = compiled(state, x, y)
            return jax.block_until_ready(losses)

        return step

    def numbers(self, x):
        return numpy.asarray(x)


def prepare(engine, path):
    """The step of one case, after its losses have been compared with tutti's."""
    data = read_safetensors(path)
    x, y, expected = data.pop("x"), data.pop("y"), data.pop("losses")
    step = engine.make(data, x, y)
    for _ in range(CHECKED_STEPS):
        losses = step()
    mean = numpy.mean(engine.numbers(losses))
    if not numpy.allclose(mean, numpy.mean(expected), rtol=1e-3):
        raise ValueError(f"mean loss {mean}, tutti has {numpy.mean(expected)}")
    return step


def measure(step, clock):
    """Microseconds: the median of nine samples of at least 10 ms."""
    samples, calls = [], 1
    while len(samples) < 9:
        start = clock()
        for _ in range(calls):
            step()
        seconds = clock() - start
        if seconds < 0.01:
            calls *= 2
        else:
            samples.append(seconds / calls)
    return statistics.median(samples) * 1e6


def main():
    name, folder, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    # On one core everything runs in turn, and processor time leaves out what else the machine does.
    clock = time.process_time if threads == 1 else time.perf_counter
    engine = None
    steps = {}
    for line in sys.stdin:
        case = line.strip()
        try:
            if engine is None:
                engine = Jax(threads) if name == "jax" else Torch(threads, name == "torch.compile")
            if case not in steps:
                steps[case] = prepare(engine, folder / f"{case}.safetensors")
            print(f"{measure(steps[case], clock):.1f}", flush=True)
        except Exception as e:  # one engine that cannot must not end the comparison
            print("- " + f"{type(e).__name__}: {e}".replace("\n", " ")[:300], flush=True)


if __name__ == "__main__":
    main()
