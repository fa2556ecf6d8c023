"""Tests Muon: its updates against the singular value decomposition, its other half against torch's AdamW."""

import math

import pytest
import torch
from torch import nn

from model.errors import UserError
from model.training.muon import ADAM_RMS, Muon, orthogonal
from model.training.recipe import Recipe
from model.training.step import open_optimizer


@pytest.mark.parametrize("shape", [(2, 6, 20), (1, 20, 6), (1, 8, 8)])
def test_orthogonal_keeps_directions_and_evens_their_weights(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    m = torch.randn(shape)
    u, s, v = torch.linalg.svd(m, full_matrices=False)
    core = u.mT @ orthogonal(m) @ v.mT  # diagonal, if the directions are those of m
    values = core.diagonal(dim1=1, dim2=2)
    assert torch.allclose(core, torch.diag_embed(values), atol=1e-4)
    assert values.min() > 0.65
    assert values.max() < 1.25
    assert s.max() / s.min() > 1.5  # they were not even before


def test_a_matrix_of_low_rank_stays_finite() -> None:
    torch.manual_seed(0)
    low = torch.randn(1, 30, 2) @ torch.randn(1, 2, 50)
    values = torch.linalg.svdvals(orthogonal(low)[0])
    assert values[1] > 0.65
    assert values[2] < 1e-2
    assert torch.equal(orthogonal(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


def test_a_first_step_moves_a_kernel_by_the_size_of_adams() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(8, 16, 3, bias=False)
    before = net.weight.detach().clone()
    optimizer = Muon(net, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    net.weight.grad = torch.randn_like(before)
    optimizer.step()
    moved = (net.weight.detach() - before).flatten(1) / 0.01
    values = torch.linalg.svdvals(moved) / (ADAM_RMS * math.sqrt(8 * 9))
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_all_but_kernels_move_as_under_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(3, 4) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = Muon(ours, 1e-2), torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=1e-2)
    for group in optimizers[0].param_groups:
        group["lr"] = 0.1
    for _ in range(5):
        x = torch.randn(2, 3)
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(UserError, match="adamw and muon"):
        open_optimizer(nn.Linear(1, 1), Recipe(optimizer="sgd"))
