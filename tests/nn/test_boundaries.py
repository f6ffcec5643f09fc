"""Padding and attention, on both U-Nets: shifts commute on periodic grids, mirrored fields stay mirrored."""

import pytest
import torch

from scidiff.nn import MPUNet, UNet

KINDS = [UNet, MPUNet]
GRIDS = {1: (16,), 2: (8, 12), 3: (8, 12, 8)}


def network(kind, dims=2, padding="zeros", attention=(), patch=2, seed=3, width=(8, 12)):
    """In float64, all weights at work (layers that start at zero too)."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        net = kind(2, None, width, 1, dims, patch, 16, padding, attention).double()
        for p in net.parameters():
            torch.nn.init.normal_(p, mean=0.5 if p.ndim == 0 else 0.0, std=0.2)
    return net.requires_grad_(False)


def field(dims, generator):
    return torch.randn(2, 2, *GRIDS[dims], generator=generator, dtype=torch.float64)


LABEL = torch.tensor([-0.4, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dims", "attention"), [(1, ()), (2, (1,)), (3, ())])
def test_periodic_networks_commute_with_shifts(kind, dims, attention, generator):
    net, x = network(kind, dims, "periodic", attention), field(dims, generator)
    shift = (net.multiple,) * dims
    axes = tuple(range(2, 2 + dims))
    moved = net(x.roll(shift, axes), LABEL)
    torch.testing.assert_close(moved, net(x, LABEL).roll(shift, axes), rtol=1e-10, atol=1e-10)
    zeros = network(kind, dims, "zeros", attention)
    assert (zeros(x.roll(shift, axes), LABEL) - zeros(x, LABEL).roll(shift, axes)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_periodic_networks_refuse_other_grids(kind):
    with pytest.raises(ValueError, match=r"\(8, 10\) must be multiples of 4"):
        network(kind, padding="periodic")(torch.zeros(1, 2, 8, 10, dtype=torch.float64), LABEL[:1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_any_grid_fits(kind, padding, generator):
    x = torch.randn(1, 2, 9, 14, generator=generator, dtype=torch.float64)
    out = network(kind, padding=padding, attention=(1,))(x, LABEL[:1])
    assert out.shape == x.shape and out.std() > 0.01


def test_reflection_sees_the_field_and_not_zeros(generator):
    """A constant field stays constant up to the edge when mirrored; with zeros the edge shows."""
    x = torch.full((1, 2, 16, 16), 0.7, dtype=torch.float64)
    for kind in KINDS:
        mirrored = network(kind, padding="reflect", patch=1)(x, LABEL[:1])
        assert mirrored.flatten(2).std(2).max() < 1e-10
        assert network(kind, padding="zeros", patch=1)(x, LABEL[:1]).flatten(2).std(2).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_attention_reaches_everywhere(kind):
    """Gradient of a corner with respect to the opposite corner, far beyond the convolutions' reach."""
    for attention, reached in (((), False), ((1,), True)):
        net = network(kind, attention=attention)
        x = torch.ones(1, 2, 64, 64, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(net(x, LABEL[:1])[0, 0, 0, 0], x)
        assert bool(g[..., -1, -1].abs().max() > 0) == reached


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_influence_each_other(kind, generator):
    net, x = network(kind, attention=(0,)), field(2, generator)
    torch.testing.assert_close(net(x, LABEL)[1:], net(x[1:], LABEL[1:]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_constructor_arguments_rebuild_the_network(kind, generator):
    net, x = network(kind, padding="reflect", attention=(1,)), field(2, generator)
    again = kind(**net.config).double()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x, LABEL), net(x, LABEL))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_options_are_named(kind):
    with pytest.raises(ValueError, match="padding must be one of zeros, periodic, reflect"):
        kind(1, padding="circular")
    with pytest.raises(ValueError, match=r"levels 0 \(finest\) to 1"):
        kind(1, width=(8, 8), attention=(2,))
