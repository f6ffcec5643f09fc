"""The U-Net is local and takes any grid: what it says at a point does not depend on how the field was cut."""

import pytest
import torch

from scidiff.nn import UNet
from scidiff.nn.grid import from_patches, to_patches


def _network(dims: int = 2, patch: int = 2, width: tuple[int, ...] = (8, 12)) -> UNet:
    """Small network in float64 whose zero-initialised layers are replaced by noise, so that all paths count."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        network = UNet(2, width=width, blocks=1, dims=dims, patch=patch, embedding=16).double()
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.2)
    return network.requires_grad_(False)


@pytest.mark.parametrize(("dims", "grid"), [(1, (13,)), (2, (9, 14)), (2, (8, 8)), (3, (5, 6, 7))])
def test_any_grid(dims, grid, generator):
    network = _network(dims)
    x = torch.randn(3, 2, *grid, generator=generator, dtype=torch.float64)
    out = network(x, torch.zeros(3, dtype=torch.float64))
    assert out.shape == x.shape
    assert out.std() > 0.01


def test_rows_do_not_influence_each_other(generator):
    network = _network()
    x = torch.randn(3, 2, 9, 14, generator=generator, dtype=torch.float64)
    label = torch.randn(3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(network(x, label)[1:2], network(x[1:2], label[1:2]), rtol=1e-12, atol=1e-12)


def test_a_point_depends_on_its_receptive_field_only(generator):
    """Gradient of one output point: zero beyond the receptive field, so statistics of the whole field do not enter."""
    network = _network()
    x = torch.randn(1, 2, 96, 96, generator=generator, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x, torch.zeros(1, dtype=torch.float64))[0, 0, 48, 48], x)
    reach = gradient.abs().sum((0, 1)).nonzero() - 48
    assert 4 <= reach.abs().max() <= 40


def test_a_window_gives_what_the_whole_field_gives(generator):
    network = _network()
    x = torch.randn(1, 2, 120, 112, generator=generator, dtype=torch.float64)
    label = torch.zeros(1, dtype=torch.float64)
    whole, window = network(x, label), network(x[..., 8:108, 4:104], label)
    torch.testing.assert_close(window[..., 44:56, 44:56], whole[..., 52:64, 48:60], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("grid", [(8,), (4, 6), (4, 2, 6)])
def test_patches_come_back(grid, generator):
    x = torch.randn(2, 3, *grid, generator=generator)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 3 * 2 ** len(grid), *(n // 2 for n in grid))
    assert torch.equal(from_patches(patches, 2, len(grid)), x)


def test_a_patch_holds_neighbours():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert to_patches(x, 2)[0, :, 0, 1].tolist() == [2.0, 3.0, 6.0, 7.0]


def test_wrong_channels_are_named():
    with pytest.raises(ValueError, match=r"takes 2 channels on a 2-D grid"):
        _network()(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="dims must be 1, 2 or 3"):
        UNet(2, dims=4)
