"""Muon: momentum whose update is orthogonalised, for every weight that is a matrix (convolutions flattened).

Reference: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the update is
scaled to AdamW's usual size as in Liu et al., arXiv:2502.16982.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch


def orthogonalise(m: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Nearest semi-orthogonal matrices of a batch [N, rows, columns], by a quintic Newton-Schulz iteration."""
    wide = m.shape[-2] <= m.shape[-1]
    m = m if wide else m.mT
    m = m / (m.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = m @ m.mT
        m = 3.4445 * m + (-4.7750 * a + 2.0315 * a @ a) @ m
    return m if wide else m.mT


class Muon(torch.optim.Optimizer):
    """The optimiser, for parameters of two dimensions or more; all other ones belong to AdamW (see ``split``)."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 8e-3,
        momentum: float = 0.95,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def momenta(self) -> list[torch.Tensor]:
        """Return each parameter's momentum, to be kept or to be restored in place."""
        owned = [p for group in self.param_groups for p in group["params"]]
        return [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in owned]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not supported."""
        if closure is not None:
            raise TypeError("Muon evaluates no closure")
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[torch.Tensor]] = {}  # same shape: one batched iteration
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(tuple(p.shape), []).append(p)
            for shape, ps in alike.items():
                grads = [p.grad for p in ps if p.grad is not None]
                state = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in ps]
                torch._foreach_lerp_(state, grads, 1 - group["momentum"])
                look = torch._foreach_lerp(grads, state, group["momentum"])
                m = torch.stack([g.reshape(shape[0], -1).float() for g in look])
                m = orthogonalise(m.bfloat16()).float() * (0.2 * math.sqrt(max(m.shape[-2:])) * group["lr"])
                for p, u in zip(ps, m, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(u.reshape(shape).to(p.dtype))


def split(module: torch.nn.Module, smallest: int = 16) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Return (parameters for Muon, the rest for AdamW).

    Muon takes matrices of at least ``smallest`` rows and columns, convolutions flattened; embeddings are excepted.
    """
    tables = {id(p) for m in module.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    big: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for p in module.parameters():
        fits = p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= smallest and id(p) not in tables
        (big if fits else rest).append(p)
    return big, rest
