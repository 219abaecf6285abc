"""The optimiser of matrices."""

from __future__ import annotations

import pytest
import torch

from safegen.tinymodel.training import muon


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_orthogonalised_updates_have_even_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(muon.orthogonalise(torch.randn(2, *shape)))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_minimises() -> None:
    torch.manual_seed(0)
    target, weight = torch.randn(8, 8), torch.nn.Parameter(torch.zeros(8, 8))
    optimiser = muon.Muon([weight])
    losses = []
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimiser.zero_grad()
        loss = ((weight - target) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


def test_embeddings_and_thin_weights_go_to_the_other_optimiser() -> None:
    module = torch.nn.ModuleDict({"table": torch.nn.Embedding(40, 40), "wide": torch.nn.Linear(40, 40)})
    big, rest = muon.split(module, 16)
    assert [id(p) for p in big] == [id(module["wide"].weight)]
    assert len(rest) == 2
