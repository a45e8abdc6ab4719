#!/usr/bin/env python3
"""Makes nn.safetensors and optim.safetensors: what PyTorch computes for the layers, losses and
optimizers that test_nn.cpp and test_optim.cpp compare with.

Needs torch and safetensors; run it in this folder. All inputs are stored with the results."""
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
out = {}


def put(name, value):
    out[name] = value.detach().clone().contiguous()


def leaf(name, *sizes):
    x = torch.randn(*sizes)
    put(name, x)
    return x.requires_grad_()


# ---- layers: output, and gradients of sum(output * cos(0, 1, 2, ...))
def backward(name, y, **leaves):
    put(name + ".out", y)
    seed = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    for key, g in zip(leaves, torch.autograd.grad((y * seed).sum(), list(leaves.values()))):
        put(f"{name}.grad.{key}", g)


x, w, b = leaf("linear.x", 4, 3), leaf("linear.w", 2, 3), leaf("linear.b", 2)
backward("linear", F.linear(x, w, b), x=x, w=w, b=b)

w = leaf("embedding.w", 5, 2)
index = torch.tensor([[0, 2, 4], [2, 2, 1]])
put("embedding.index", index)
backward("embedding", F.embedding(index, w, padding_idx=2), w=w)

x, w, b = leaf("layer_norm.x", 2, 3, 4), leaf("layer_norm.w", 3, 4), leaf("layer_norm.b", 3, 4)
backward("layer_norm", F.layer_norm(x, (3, 4), w, b), x=x, w=w, b=b)

x = leaf("activation.x", 11)
for name, f in {
    "relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": F.silu, "gelu": F.gelu,
    "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"), "elu": lambda v: F.elu(v, 0.7),
    "leaky_relu": lambda v: F.leaky_relu(v, 0.2), "softplus": lambda v: F.softplus(v, 2, 1.5),
    "softmax": lambda v: F.softmax(v, 0), "log_softmax": lambda v: F.log_softmax(v, 0),
}.items():
    backward("activation." + name, f(x), x=x)

for name, sizes, momentum in [("bn", (6, 3), 0.1), ("bn3", (4, 3, 5), 0.3), ("bn_average", (6, 3), None)]:
    m = nn.BatchNorm1d(3, momentum=momentum)
    with torch.no_grad():
        m.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        m.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    for step in range(3):
        x = leaf(f"{name}.{step}.x", *sizes)
        backward(f"{name}.{step}", m(x), x=x, w=m.weight, b=m.bias)
        put(f"{name}.{step}.running_mean", m.running_mean)
        put(f"{name}.{step}.running_var", m.running_var)
    m.eval()
    backward(f"{name}.eval", m(x), x=x, w=m.weight, b=m.bias)

# ---- losses: value and gradient of the input, for every reduction
def losses(name, f, x):
    for reduction in "none", "mean", "sum":
        y = f(reduction)
        backward(f"{name}.{reduction}", y, x=x)


x, t = leaf("pair.x", 3, 4), torch.randn(3, 4)
put("pair.t", t)
losses("mse", lambda r: F.mse_loss(x, t, reduction=r), x)
losses("l1", lambda r: F.l1_loss(x, t, reduction=r), x)
losses("smooth_l1", lambda r: F.smooth_l1_loss(x, t, reduction=r, beta=0.7), x)
losses("huber", lambda r: F.huber_loss(x, t, reduction=r, delta=0.7), x)

weight = torch.rand(4) + 0.5
put("class.weight", weight)
for shape, sizes in {"nc": (5, 4), "nchw": (2, 4, 3, 2), "c": (4,)}.items():
    x = leaf(f"ce.{shape}.x", *sizes)
    where = sizes[:1] + sizes[2:] if len(sizes) > 1 else ()
    t = torch.randint(0, 4, where)
    p = torch.softmax(torch.randn(*sizes), 1 if len(sizes) > 1 else 0)
    put(f"ce.{shape}.t", t)
    put(f"ce.{shape}.p", p)
    some = t.clone()
    if some.dim():
        some.view(-1)[1] = -100
        some.view(-1)[3] = -100
    put(f"ce.{shape}.some", some)
    for kind, target in ("t", t), ("some", some), ("p", p):
        for w_name, w in ("plain", None), ("weighted", weight):
            for smoothing in 0.0, 0.2:
                losses(f"ce.{shape}.{kind}.{w_name}.{smoothing}",
                       lambda r: F.cross_entropy(x, target, w, reduction=r, label_smoothing=smoothing), x)
x, t = leaf("nll.x", 5, 4), torch.tensor([0, 3, 2, 1, 2])
put("nll.t", t)
losses("nll", lambda r: F.nll_loss(x, t, weight, reduction=r, ignore_index=2), x)

x, t, w = leaf("bce.x", 3, 4), torch.rand(3, 4), torch.rand(3, 4)
put("bce.t", t), put("bce.w", w), put("bce.pos", weight)
losses("bce_logits", lambda r: F.binary_cross_entropy_with_logits(x, t, w, reduction=r, pos_weight=weight), x)
q = torch.sigmoid(x.detach()).requires_grad_()
put("bce.q", q)
losses("bce", lambda r: F.binary_cross_entropy(q, t, w, reduction=r), q)

x, t = leaf("kl.x", 3, 4), torch.softmax(torch.randn(3, 4), 1)
t[0, 0] = 0
put("kl.t", t)
losses("kl", lambda r: F.kl_div(x, t, reduction=r), x)
put("kl.batchmean", F.kl_div(x, t, reduction="batchmean"))
s = torch.randn(3, 4).log_softmax(1)
put("kl.s", s)
losses("kl_log", lambda r: F.kl_div(x, s, reduction=r, log_target=True), x)

save_file(out, "nn.safetensors")

# ---- optimizers: two parameters, five given gradients, the values after every step
out.clear()
start = {"w": torch.randn(2, 3), "b": torch.randn(3)}
grads = [{k: torch.randn_like(v) for k, v in start.items()} for _ in range(5)]
for k, v in start.items():
    put("start." + k, v)
    for step, g in enumerate(grads):
        put(f"grad.{step}.{k}", g[k])

optim = torch.optim
configs = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd_decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.3),
    "sgd_momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd_dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.4, weight_decay=0.1),
    "sgd_nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: optim.Adam(p),
    "adam_decay": lambda p: optim.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2),
    "adam_amsgrad": lambda p: optim.Adam(p, lr=0.05, betas=(0.5, 0.6), amsgrad=True),
    "adamw": lambda p: optim.AdamW(p),
    "adamw_decay": lambda p: optim.AdamW(p, lr=0.05, betas=(0.8, 0.95), weight_decay=0.3, amsgrad=True),
    "rmsprop": lambda p: optim.RMSprop(p),
    "rmsprop_centered": lambda p: optim.RMSprop(p, lr=0.02, alpha=0.9, weight_decay=0.1, momentum=0.8, centered=True),
    "adagrad": lambda p: optim.Adagrad(p),
    "adagrad_decay": lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.2, weight_decay=0.1, initial_accumulator_value=0.5),
}
for dtype in torch.float32, torch.float64:
    for name, make in configs.items():
        params = {k: v.to(dtype).clone().requires_grad_() for k, v in start.items()}
        opt = make(list(params.values()))
        for step, g in enumerate(grads):
            for k, p in params.items():
                p.grad = g[k].to(dtype)
            opt.step()
            for k, p in params.items():
                put(f"{name}.{str(dtype)[6:]}.{step}.{k}", p)
save_file(out, "optim.safetensors")
