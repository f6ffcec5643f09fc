"""Local maps part by part: the same answer and the same products, whatever the boundary, the dimension and the batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from scidiff.nn import UNet, recompute, strips
from scidiff.nn.grid import PADDING
from scidiff.nn.recompute import maybe_recomputed, recomputing, whole_recomputed
from scidiff.nn.unet import Block

GRIDS = {1: (96,), 2: (64, 44), 3: (10, 12, 66)}


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(strips, "SMALLEST", 64)
    monkeypatch.setattr(recompute, "SMALLEST", 64)


def drawn(shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def block(dims, padding, embedding=0):
    made = Block(dims, 3, 5, embedding, padding).double()
    with torch.no_grad():
        for k, p in enumerate(made.parameters()):
            p.copy_(0.3 * drawn(p.shape, 10 + k))
    return made.requires_grad_(False)


def outcome(f, x, *more):
    """Value and gradient of a map."""
    x = x.clone().requires_grad_()
    y = f(x, *more)
    return y.detach(), torch.autograd.grad((y * drawn(y.shape, 5)).sum(), x)[0]


@pytest.mark.parametrize("padding", list(PADDING))
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_strips_of_a_block_are_the_block(everything_is_large, dims, padding):
    f, x = block(dims, padding, embedding=4), drawn((2, 3, *GRIDS[dims]))
    e = drawn((2, 4), 1)
    pieces = strips.parts(x, 2, padding == "periodic")
    assert len(pieces) >= 2 * 4 and {p.axis for p in pieces} == {2 + max(range(dims), key=lambda i: GRIDS[dims][i])}
    whole = outcome(f, x, e)
    with recomputing():
        found = outcome(f, x, e)
        with torch.no_grad():
            forward = f(x, e)
        alone = outcome(f, x[1:], e[1:])
    for a, b in zip(whole, found, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12 * float(a.abs().max()))
    assert torch.equal(forward, found[0])
    assert torch.equal(alone[0], found[0][1:])  # divided alike, alone and in a batch


def test_a_halo_that_is_too_small_is_seen(everything_is_large):
    """The test above could fail: one row less is not enough."""
    f, x = block(2, "zeros"), drawn((1, 3, 64, 44))
    with recomputing(), torch.no_grad():
        near = maybe_recomputed(f._forward, x, None, halo=1)
    assert (near - f(x)).abs().max() > 1e-3


def test_parts_cover_the_field_once():
    x = torch.zeros(3, 8, 512, 300)
    seen = torch.zeros_like(x)
    for part in strips.parts(x, 2, periodic=True):
        part.of(seen).add_(1)
        assert part.cut(part.take(x)).shape == part.of(x).shape
    assert torch.equal(seen, torch.ones_like(x))
    small = torch.zeros(7, 8, 64, 64)  # groups of eight rows at most, none divided
    assert [p.axis for p in strips.parts(small, 2, False)] == [None] and strips.parts(x, None, False)[0].axis is None


def test_adding_back_is_the_transpose_of_taking(everything_is_large):
    x = drawn((2, 1, 40, 33))
    for part in strips.parts(x, 3, periodic=True):
        y = drawn(part.take(x).shape, 2)
        back = torch.zeros_like(x)
        part.add(back, y)
        assert torch.isclose((part.take(x) * y).sum(), (x * back).sum(), rtol=1e-12)


def test_a_network_as_a_whole_keeps_only_its_input_and_can_be_differentiated_twice(everything_is_large):
    network = UNet(2, width=(8, 12), blocks=1, embedding=8, attention=(1,)).double().requires_grad_(False)
    with torch.no_grad():
        for k, p in enumerate(network.parameters()):
            p.copy_(0.3 * drawn(p.shape, 20 + k))
    x, label = drawn((2, 2, 32, 20)), torch.tensor([0.5, 2.0], dtype=torch.float64)
    plain = outcome(network, x, label)
    saved = []
    with recomputing():
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            u = x.clone().requires_grad_()
            y = whole_recomputed(network, u, label)
        assert sum(saved) == x.numel()
        found = outcome(lambda x: whole_recomputed(network, x, label), x)
        v = torch.zeros_like(y).requires_grad_()
        (g,) = torch.autograd.grad(y, u, v, create_graph=True)
        (forward,) = torch.autograd.grad(g, v, drawn(x.shape, 3))
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(plain, found, strict=True))
    h = 1e-6
    difference = (network(x + h * drawn(x.shape, 3), label) - network(x - h * drawn(x.shape, 3), label)) / (2 * h)
    assert torch.allclose(forward, difference, rtol=1e-5, atol=1e-6)


def test_weights_that_are_trained_are_not_forgotten(everything_is_large):
    f, x = block(1, "zeros").requires_grad_(True), drawn((1, 3, 96)).requires_grad_()
    with recomputing():
        gradient = torch.autograd.grad(f(x).square().sum(), f.conv1.weight)[0]  # type: ignore[arg-type]
    assert torch.equal(gradient, torch.autograd.grad(f(x).square().sum(), f.conv1.weight)[0])  # type: ignore[arg-type]
    y = F.silu(x)  # and what needs no gradient has none
    with recomputing():
        assert not maybe_recomputed(F.silu, y.detach(), halo=0).requires_grad
