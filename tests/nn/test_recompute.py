"""Blocks that are computed again on the way back: the same numbers, fewer of them kept."""

import pytest
import torch
from torch import Generator

from scidiff.nn import UNet
from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.nn.recompute import SMALLEST, recomputing

SIDE = 256
"""Large enough for blocks of 16 channels on patches of 2 points."""


def made(network, seed=0):
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return network.requires_grad_(False)


def kept(f, u):
    """Value, gradient, and numbers that the graph holds beside those of the network."""
    sizes = {}

    def pack(t):
        if t.requires_grad or t.grad_fn is not None or t.shape[-1] in (u.shape[-1], SIDE // 2, SIDE // 4):
            sizes[t.data_ptr()] = t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        x = u.clone().requires_grad_()
        value = f(x).square().sum()
    return value.detach(), torch.autograd.grad(value, x)[0], sum(sizes.values())


def cases():
    autoencoder = made(ConvAutoencoder(1, 2, (16, 16), blocks=1))
    code = torch.randn(1, 2, SIDE // 4, SIDE // 4, generator=Generator().manual_seed(1))
    field = torch.randn(1, 1, SIDE, SIDE, generator=Generator().manual_seed(2))
    unet = made(UNet(1, width=(16,), blocks=1, patch=2, embedding=8))
    return [
        (autoencoder.decode, code),
        (lambda x: autoencoder.encode(x)[0], field),
        (lambda x: unet(x, torch.ones(1)), field),
    ]


@pytest.mark.parametrize("index", range(3), ids=["decoder", "encoder", "unet"])
def test_same_gradient_with_a_smaller_graph(index):
    f, u = cases()[index]
    value, gradient, plain = kept(f, u)
    with recomputing():
        again, other, small = kept(f, u)
    assert torch.equal(value, again) and torch.equal(gradient, other)
    assert small < 0.5 * plain
    assert torch.equal(kept(f, u)[1], gradient) and kept(f, u)[2] == plain  # ends with the block


def test_twice_back_and_forward_mode():
    """Products forward through the decoder: by differentiating the product back, and directly."""
    f, u = cases()[0]
    w = torch.randn(u.shape, generator=Generator().manual_seed(3))

    def product():
        x = u.clone().requires_grad_()
        y = f(x)
        v = torch.zeros_like(y).requires_grad_()
        (g,) = torch.autograd.grad(y, x, v, create_graph=True)
        first = torch.autograd.grad(g, v, w, retain_graph=True)[0]
        assert torch.equal(first, torch.autograd.grad(g, v, w)[0])
        return first

    plain = product()
    with recomputing():
        assert torch.allclose(product(), plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
        with torch.no_grad():
            forward = torch.func.jvp(f, (u,), (w,))[1]
    assert torch.allclose(forward, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def test_small_inputs_and_no_graph_are_left_alone():
    f, u = cases()[0]
    small = u[..., :4, :4]
    assert 16 * 8 * 8 < SMALLEST
    with recomputing():
        assert kept(f, small)[2] == kept(f, small)[2]
        assert not f(u).requires_grad
