"""Defines Muon (K. Jordan and others, 2024): orthogonal updates of convolutions; AdamW for all other weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, which moves singular values to 0.7..1.2
ITERATIONS = 5
MOMENTUM = 0.95
ADAM_RMS = 0.2  # size of an AdamW update at rate 1, so that one rate fits both (arXiv 2502.16982)
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW


def orthogonal(matrices: Tensor) -> Tensor:
    """Returns about U V^T of each matrix U S V^T, (N,rows,columns): matrices whose singular values are near 1.

    Every iterate is a polynomial of x x^T times x, so all products but two are of small square matrices.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    one = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device).expand_as(gram)
    product = one
    for _ in range(ITERATIONS):
        factor = torch.baddbmm(a * one + b * gram, gram, gram, alpha=c)
        product = factor @ product
        gram = factor @ gram @ factor
        gram = (gram + gram.mT) / 2  # rounding errors would grow in its antisymmetric part
    x = product @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Updates convolutions within the blocks by Muon and all other weights by AdamW, at one learning rate.

    A kernel (out,in,k,k) is taken as the matrix (out, in*k*k). First layers, whose inputs are images, use AdamW.
    """

    def __init__(self, net: nn.Module, weight_decay: float) -> None:
        kinds: tuple[list[Tensor], list[Tensor]] = [], []
        for name, p in net.named_parameters():
            inner = p.dim() == 4 and min(p.shape[-2:]) > 1 and "encode" not in name and "conv0.0." not in name
            kinds[inner].append(p)
        groups = [{"params": params, "muon": bool(inner)} for inner, params in enumerate(kinds) if params]
        super().__init__(groups, {"lr": 1e-6, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates every weight that has a gradient."""
        loss = closure() if closure else None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            updates = self._muon(params) if group["muon"] else [self._adam(p) for p in params]
            for p, update in zip(params, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
        return loss

    def _muon(self, params: list[Tensor]) -> list[Tensor]:
        """Returns Muon's updates, computed together for kernels of one shape."""
        made: dict[Tensor, Tensor] = {}
        for shape in {p.shape for p in params}:
            alike = [p for p in params if p.shape == shape]
            kernels = torch.stack([self._nesterov(p) for p in alike]).flatten(2)  # (N,out,in*k*k)
            size = ADAM_RMS * math.sqrt(max(kernels.shape[1:]))
            made |= {p: (size * u).view(shape) for p, u in zip(alike, orthogonal(kernels), strict=True)}
        return [made[p] for p in params]

    def _nesterov(self, p: Tensor) -> Tensor:
        """Returns the gradient with Nesterov's momentum."""
        assert p.grad is not None
        kept: dict[str, Any] = self.state[p]
        momentum = kept.setdefault("momentum", torch.zeros_like(p))
        momentum.lerp_(p.grad, 1 - MOMENTUM)
        return p.grad.lerp(momentum, MOMENTUM)

    def _adam(self, p: Tensor) -> Tensor:
        """Returns AdamW's update without the weight decay."""
        assert p.grad is not None
        kept: dict[str, Any] = self.state[p]
        first, second = (kept.setdefault(key, torch.zeros_like(p)) for key in ("first", "second"))
        kept["step"] = kept.get("step", 0) + 1
        first.lerp_(p.grad, 1 - BETAS[0])
        second.lerp_(p.grad.square(), 1 - BETAS[1])
        corrected = second / (1 - BETAS[1] ** kept["step"])
        return first / (1 - BETAS[0] ** kept["step"]) / (corrected.sqrt() + EPSILON)
