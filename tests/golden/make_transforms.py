#!/usr/bin/env python3
"""Makes transforms.safetensors: what functorch (PyTorch 1.13) computes for the compositions of transforms that
test_golden_transforms.cpp repeats.

Needs torch with functorch, and safetensors; run it in this folder. A case's inputs are stored as NAME.in.KEY, its
results as NAME.out.KEY, all float64 (indices int64)."""
import torch
import torch.nn.functional as F
from functorch import combine_state_for_ensemble, grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp, vmap
from safetensors.torch import save_file
from torch import nn

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)
out = {}


def rand(*sizes, scale=1.0):
    return torch.randn(*sizes) * scale


def case(name, inputs, results):
    """inputs, results: dicts of tensors; a nested dict's keys are joined with dots."""
    def put(prefix, tree):
        for key, value in tree.items():
            if isinstance(value, dict):
                put(f"{prefix}.{key}", value)
            else:
                out[f"{prefix}.{key}"] = value.detach().clone().contiguous()
    assert f"{name}.in" not in {k.rsplit(".", 1)[0] for k in out}, name
    put(name + ".in", inputs)
    put(name + ".out", results)


def mlp_params(*widths, members=()):
    p = {}
    for i, (a, b) in enumerate(zip(widths, widths[1:])):
        p[f"w{i}"] = rand(*members, b, a, scale=0.7)
        p[f"b{i}"] = rand(*members, b, scale=0.2)
    return p


def mlp(p, x):
    n = len(p) // 2
    for i in range(n):
        x = F.linear(x, p[f"w{i}"], p[f"b{i}"])
        if i + 1 < n:
            x = torch.tanh(x)
    return x


def dot(a, b):
    return sum((a[k] * b[k]).sum() for k in a)


def each_sample(loss, p, x, y):
    """Per-sample gradients of losses that vmap of 1.13 refuses."""
    rows = [grad(loss)(p, x[i:i + 1], y[i:i + 1]) for i in range(len(x))]
    return {k: torch.stack([r[k] for r in rows]) for k in p}


# ---- per-sample gradients
p, x, y = mlp_params(4, 5, 3), rand(6, 4), torch.randint(3, (6,))
loss = lambda p, x, y: F.cross_entropy(mlp(p, x), y)
case("per_sample_mlp", {**p, "x": x, "y": y}, vmap(grad(loss), (None, 0, 0))(p, x, y))

embed = {"table": rand(7, 4), **mlp_params(4, 3)}
words, y = torch.randint(7, (5, 3)), torch.randint(3, (5,))
def embed_loss(p, words, y):
    h = F.embedding(words, p["table"]).mean(0)
    return F.cross_entropy(F.linear(h, p["w0"], p["b0"]), y)
case("per_sample_embedding", {**embed, "words": words, "y": y}, vmap(grad(embed_loss), (None, 0, 0))(embed, words, y))

p, x = mlp_params(3, 4, 4), rand(5, 3)
y = torch.tensor([1, -100, 0, 3, -100])
loss_ignored = lambda p, x, y: F.cross_entropy(mlp(p, x), y, ignore_index=-100, reduction="sum")
case("per_sample_ignored", {**p, "x": x, "y": y}, each_sample(loss_ignored, p, x, y))

p, x, y = mlp_params(3, 4), rand(5, 3), torch.randint(4, (5,))
loss_smooth = lambda p, x, y: F.cross_entropy(mlp(p, x), y, label_smoothing=0.2)
case("per_sample_smoothed", {**p, "x": x, "y": y}, each_sample(loss_smooth, p, x, y))

wq, wk, wv, x = rand(4, 3), rand(4, 3), rand(4, 3), rand(3, 5, 4)
def attention_loss(w, x):
    q, k, v = x @ w["wq"], x @ w["wk"], x @ w["wv"]
    return (torch.softmax(q @ k.transpose(-1, -2) / 3 ** 0.5, -1) @ v).square().sum()
w = {"wq": wq, "wk": wk, "wv": wv}
case("per_sample_attention", {**w, "x": x}, vmap(grad(attention_loss), (None, 0))(w, x))

# ---- MAML: the gradient through one inner step, for four tasks at once
p, xs, ys, xq, yq = mlp_params(1, 6, 1), rand(4, 5, 1), rand(4, 5, 1), rand(4, 5, 1), rand(4, 5, 1)
def maml_task(p, xs, ys, xq, yq):
    g = grad(lambda q: (mlp(q, xs) - ys).square().mean())(p)
    q = {k: p[k] - 0.1 * g[k] for k in p}
    return (mlp(q, xq) - yq).square().mean()
maml = lambda p, *task: vmap(maml_task, (None, 0, 0, 0, 0))(p, *task).mean()
case("maml", {**p, "xs": xs, "ys": ys, "xq": xq, "yq": yq}, {**grad(maml)(p, xs, ys, xq, yq), "loss": maml(p, xs, ys, xq, yq)})

# ---- the neural tangent kernel, by Jacobians and by products
p, x1, x2 = mlp_params(3, 4, 2), rand(3, 3), rand(2, 3)
keys = list(p)
flat = lambda x: (lambda *v: mlp(dict(zip(keys, v)), x))
jac = lambda x: jacrev(flat(x), tuple(range(len(keys))))(*p.values())
j1, j2 = vmap(jac)(x1), vmap(jac)(x2)
ntk = sum(torch.einsum("nap,mbp->nmab", a.flatten(2), b.flatten(2)) for a, b in zip(j1, j2))
case("ntk", {**p, "x1": x1, "x2": x2}, {"kernel": ntk})

# ---- Hessians
w, x, y = rand(3, 4), rand(6, 4), torch.randint(3, (6,))
softmax_regression = lambda w: F.cross_entropy(x @ w.t(), y)
case("hessian_softmax", {"w": w, "x": x, "y": y}, {"h": jacrev(jacrev(softmax_regression))(w)})  # 1.13 has no forward mode here
f = lambda a, b: (torch.sin(a) * b.exp()).sum() + (a * b).prod()
a, b = rand(3), rand(3)
case("hessian_second", {"a": a, "b": b}, {"h": hessian(f, argnums=1)(a, b)})
p, x, v = mlp_params(4, 5, 1), rand(4), rand(4)
u = lambda x: mlp(p, x).sum()
case("reverse_over_forward", {**p, "x": x}, {"h": jacrev(jacfwd(u))(x)})
case("forward_over_reverse", {**p, "x": x}, {"h": jacfwd(jacrev(u))(x)})
case("hessian_vector", {**p, "x": x, "v": v}, {"hv": jvp(grad(u), (x,), (v,))[1], "vh": vjp(grad(u), x)[1](v)[0]})
ws, x = rand(3, 4, scale=0.5), rand(6, 4)
logistic = lambda w: torch.log1p(torch.exp(-(x @ w))).mean()
case("member_hessians", {"w": ws, "x": x}, {"h": vmap(hessian(logistic))(ws)})
p, xs = mlp_params(2, 6, 1), rand(5, 2)
u = lambda x: mlp(p, x).squeeze()
case("laplacian", {**p, "x": xs}, {"l": vmap(lambda x: torch.trace(hessian(u)(x)))(xs)})

# ---- jvp of vmap of grad
p, t, x, y = mlp_params(3, 4, 2), mlp_params(3, 4, 2), rand(4, 3), rand(4, 2)
square = lambda p, x, y: (mlp(p, x) - y).square().sum()
g, dg = jvp(lambda *v: tuple(vmap(grad(square), (None, 0, 0))(dict(zip(p, v)), x, y).values()), tuple(p.values()), tuple(t.values()))
case("jvp_vmap_grad", {**p, **{"t_" + k: v for k, v in t.items()}, "x": x, "y": y},
     {**dict(zip(p, g)), **{"t_" + k: v for k, v in zip(p, dg)}})

# ---- Jacobians of models
p, x = mlp_params(4, 3, 2), rand(4)
case("jacfwd_input", {**p, "x": x}, {"j": jacfwd(lambda x: mlp(p, x))(x)})
js = jacrev(flat(x), tuple(range(len(p))))(*p.values())
case("jacrev_params", {**p, "x": x}, dict(zip(p, js)))
x, c = rand(5, 2), rand(4, 2)
distances = lambda x: torch.sqrt(((x.unsqueeze(1) - c).square()).sum(-1))
case("jacobian_distances", {"x": x, "c": c}, {"j": jacrev(distances)(x)})
x = rand(4, 5)
case("jacobian_cumulative", {"x": x}, {
    "cumsum": vmap(jacrev(lambda r: r.cumsum(0)))(x), "cumprod": vmap(jacrev(lambda r: r.cumprod(0)))(x),
    "sort": vmap(jacfwd(lambda r: r.sort(0)[0]))(x), "logsumexp": vmap(jacrev(lambda r: r.logsumexp(0)))(x)})
x = rand(3, 2)
case("jacobian_several", {"x": x}, dict(zip("abc", jacrev(lambda x: (x.sum(0), x.t() @ x, x.prod()))(x))))
b, w = rand(3), rand(4, 3)
contractive = lambda w: jacrev(lambda x: torch.sigmoid(w @ x))(b).square().sum()
case("contractive", {"w": w, "x": b}, {"g": grad(contractive)(w)})

# ---- products with the Fisher and the Gauss-Newton matrix
p, v, x = mlp_params(3, 4, 3), mlp_params(3, 4, 3), rand(5, 3)
logits = lambda *q: mlp(dict(zip(p, q)), x)
z, dz = jvp(logits, tuple(p.values()), tuple(v.values()))
s = torch.softmax(z, -1)
fisher = vjp(logits, *p.values())[1](s * dz - s * (s * dz).sum(-1, keepdim=True))
gauss = vjp(logits, *p.values())[1](2 * dz)
tangents = {"t_" + k: t for k, t in v.items()}
case("fisher_vector", {**p, **tangents, "x": x}, dict(zip(p, fisher)))
case("gauss_newton", {**p, **tangents, "x": x}, dict(zip(p, gauss)))

# ---- gradients of gradients
p, x = mlp_params(3, 5, 1), rand(6, 3)
def penalty(p):
    slopes = vmap(grad(lambda x: mlp(p, x).squeeze()))(x)
    return ((slopes.square().sum(1) + 1e-3).sqrt() - 1).square().mean()
case("gradient_penalty", {**p, "x": x}, grad(penalty)(p))
p, x = mlp_params(1, 6, 1), rand(7)
u = lambda p, x: mlp(p, x.unsqueeze(0)).squeeze()
u_xx = lambda p, x: grad(grad(u, 1), 1)(p, x)
residual = lambda p: (vmap(u_xx, (None, 0))(p, x) + torch.sin(x)).square().mean()
case("physics", {**p, "x": x}, {**grad(residual)(p), "u_xx": vmap(u_xx, (None, 0))(p, x)})
x = torch.tensor(0.7)
f = lambda x: torch.sin(x) * x.exp() / (1 + x * x)
case("derivatives", {"x": x}, {"d1": grad(f)(x), "d2": grad(grad(f))(x), "d3": grad(grad(grad(f)))(x)})
lr, p, x, y = torch.tensor(0.05), mlp_params(2, 3, 1), rand(5, 2), rand(5, 1)
def trained(lr):
    q = p
    for _ in range(3):
        g = grad(lambda q: (mlp(q, x) - y).square().mean())(q)
        q = {k: q[k] - lr * g[k] for k in q}
    return (mlp(q, x) - y).square().mean()
case("learning_rate", {**p, "lr": lr, "x": x, "y": y}, {"g": grad(trained)(lr), "t": jvp(trained, (lr,), (torch.ones(()),))[1]})
w, h = rand(3, 3, scale=0.5), rand(4, 3)
def euler(w, h):
    for _ in range(5):
        h = h + 0.1 * torch.tanh(w @ h)
    return h.square().sum()
case("euler", {"w": w, "h": h}, {"g": vmap(grad(euler), (None, 0))(w, h)})
a, b = rand(4, 3), rand(2, 3)
p = mlp_params(3, 4, 1)
per_sample = lambda x: grad(lambda q: mlp(q, x).squeeze())(p)
influence = vmap(lambda x: vmap(lambda z: dot(per_sample(x), per_sample(z)))(b))(a)
case("influence", {**p, "a": a, "b": b}, {"k": influence})

# ---- ensembles
members, M = mlp_params(4, 5, 3, members=(3,)), 3
x, y = rand(6, 4), torch.randint(3, (6,))
g, l = vmap(grad_and_value(loss), (0, None, None))(members, x, y)
case("ensemble", {**members, "x": x, "y": y}, {**g, "loss": l})
q, m1, m2, losses = dict(members), {k: torch.zeros_like(v) for k, v in members.items()}, {k: torch.zeros_like(v) for k, v in members.items()}, []
for step in range(1, 4):
    g, l = vmap(grad_and_value(loss), (0, None, None))(q, x, y)
    losses.append(l)
    for k in q:
        m1[k], m2[k] = 0.9 * m1[k] + 0.1 * g[k], 0.999 * m2[k] + 0.001 * g[k].square()
        q[k] = q[k] - 0.01 * (m1[k] / (1 - 0.9 ** step)) / ((m2[k] / (1 - 0.999 ** step)).sqrt() + 1e-8)
case("ensemble_adam", {**members, "x": x, "y": y}, {**q, "losses": torch.stack(losses)})


def stacked(models, x, y, training=True):
    """Outputs, gradients of the mean square error, and buffers after one forward pass."""
    for m in models:
        m.train(training)
    fmodel, params, buffers = combine_state_for_ensemble(models)
    names = [k for k, _ in models[0].named_parameters()]
    buffer_names = [k for k, _ in models[0].named_buffers()]
    inputs = {**dict(zip(names, params)), **dict(zip(buffer_names, buffers))}
    before = {k: v.detach().clone() for k, v in inputs.items()}
    def mse(params, buffers, x, y):
        z = fmodel(params, buffers, x)
        return (z - y).square().mean(), z
    g, (l, z) = vmap(grad_and_value(mse, has_aux=True))(params, buffers, x, y)
    return before, {**{"g." + k: v for k, v in zip(names, g)}, "z": z, "loss": l, **{"b." + k: v for k, v in zip(buffer_names, buffers)}}


x, y = rand(3, 5, 4), rand(3, 5, 2)
before, after = stacked([nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2)) for _ in range(3)], x, y)
case("ensemble_layer_norm", {**before, "x": x, "y": y}, after)
before, after = stacked([nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)) for _ in range(3)], x, y)
case("ensemble_batch_norm", {**before, "x": x, "y": y}, after)
before, after = stacked([nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)) for _ in range(3)], x, y, training=False)
case("ensemble_batch_norm_eval", {**before, "x": x, "y": y}, after)

members, x, y = mlp_params(4, 8, 2, members=(3,)), rand(6, 4), rand(6, 2)
mask = torch.bernoulli(torch.full((6, 8), 0.6)) / 0.6  # one mask for all members: Dropout with randomness "same"
def masked_loss(p, x, y):
    h = torch.tanh(F.linear(x, p["w0"], p["b0"])) * mask
    return (F.linear(h, p["w1"], p["b1"]) - y).square().mean()
g, l = vmap(grad_and_value(masked_loss), (0, None, None))(members, x, y)
case("ensemble_masked", {**members, "x": x, "y": y, "mask": mask}, {**g, "loss": l})

# ---- axes, nesting, in-place, several results
a, b = rand(2, 5, 3), rand(3, 4, 5)
case("axes", {"a": a, "b": b}, {"c": vmap(lambda a, b: a @ b.t(), (2, 0), 1)(a, b), "d": vmap(lambda a: a.sum(0), 1, -1)(a)})
a, b = rand(3), rand(4)
case("outer_by_vmap", {"a": a, "b": b}, {"c": vmap(vmap(lambda a, b: a * b.exp(), (None, 0)), (0, None))(a, b)})
x = rand(4, 3)
def in_place(x):
    y = x.clone()
    y[0].mul_(2)
    y[1:].add_(y[0].clone() * x[2])  # without the clone PyTorch complains: both are views of y
    return y.sin().sum()
case("in_place", {"x": x}, {"g": vmap(grad(in_place))(x)})
x, c1, c2 = rand(3, 4), rand(4), rand(3, 3)
(_, _), pull = vjp(lambda x: (x.sin().sum(0), x @ x.t()), x)
case("two_cotangents", {"x": x, "c1": c1, "c2": c2}, {"g": pull((c1, c2))[0]})
x, y, tx, ty = rand(3), rand(3), rand(3), rand(3)
z, tz = jvp(lambda x, y: (x * y, (x / (y.square() + 1)).cumsum(0)), (x, y), (tx, ty))
case("two_tangents", {"x": x, "y": y, "tx": tx, "ty": ty}, {"z0": z[0], "z1": z[1], "t0": tz[0], "t1": tz[1]})
x, index = rand(3, 6), torch.randint(6, (3, 4))
picked = lambda x, i: (x.gather(0, i).square() + torch.zeros(4).scatter_add(0, i % 4, x[:4])).sum()
case("gather_scatter", {"x": x, "index": index}, {"g": vmap(grad(picked))(x, index)})
x, y = rand(5, 3), rand(4, 3)
kernel = lambda a, b: torch.exp(-(a - b).square().sum())
gram = lambda f: vmap(vmap(f, (None, 0)), (0, None))(x, y)
case("kernel", {"x": x, "y": y}, {"k": gram(kernel), "dk": gram(grad(kernel)), "ddk": gram(jacfwd(grad(kernel, 1)))})

names = {k.split(".")[0] for k in out}
assert len(names) >= 40, len(names)
save_file(out, "transforms.safetensors")
print(len(names), "cases,", sum(v.numel() * v.element_size() for v in out.values()), "bytes")
