"""Autoencoder networks: sizes, symmetry, the linear path, straight-through gradients."""

import pytest
import torch

from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.nn.grid import to_patches
from scidiff.training.fidelity import fidelity

WIDTH = (6, 8)


def network(**options) -> ConvAutoencoder:
    """Random weights everywhere, so that no block is the identity."""
    torch.random.fork_rng(devices=[])
    options = {"channels": 2, "latent": 3, "width": WIDTH, "blocks": 1, "patch": 2, **options}
    made = ConvAutoencoder(**options).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return made.eval()


@pytest.mark.parametrize("grid", [(48, 40), (4, 4), (64,), (8, 12, 16)])
@pytest.mark.parametrize("codebook", [0, 5])
def test_any_size_in_one_to_three_dimensions(grid, codebook, generator):
    net = network(dims=len(grid), codebook=codebook)
    x = torch.randn(2, 2, *grid, generator=generator, dtype=torch.float64)
    z, logvar = net.encode(x)
    assert net.stride == 4 and z.shape == (2, 3, *(n // 4 for n in grid))
    assert (logvar is None) == bool(codebook)
    assert net.decode(z).shape == x.shape
    torch.testing.assert_close(net.encode(x[:1])[0], z[:1])  # rows do not know of each other
    torch.testing.assert_close(net.decode(z[:1]), net.decode(z)[:1])


@pytest.mark.parametrize("shape", [(1, -2), (3, 0)])
def test_periodic_maps_commute_with_shifts_by_the_stride(shape, generator):
    net = network(padding="periodic")
    x = torch.randn(1, 2, 24, 16, generator=generator, dtype=torch.float64)
    shift = tuple(4 * n for n in shape)
    z, moved = net.encode(x)[0], net.encode(x.roll(shift, (2, 3)))[0]
    torch.testing.assert_close(moved, z.roll(shape, (2, 3)))
    torch.testing.assert_close(net.decode(moved), net.decode(z).roll(shift, (2, 3)))
    other = network(padding="zeros")
    assert (other.encode(x.roll(shift, (2, 3)))[0] - other.encode(x)[0].roll(shape, (2, 3))).abs().max() > 1e-3


def test_a_code_is_local(generator):
    """A change at one corner reaches no code beyond the receptive field."""
    net = network(blocks=1)
    x = torch.randn(1, 2, 64, 48, generator=generator, dtype=torch.float64)
    y = x.clone()
    y[..., 0, 0] += 1
    changed = (net.encode(y)[0] - net.encode(x)[0]).abs().amax((0, 1)) > 1e-12
    assert changed[0, 0] and not changed[6:].any() and not changed[:, 6:].any()


def test_a_fresh_network_is_a_linear_map_of_patches(generator):
    net = ConvAutoencoder(1, latent=4, width=WIDTH).double().eval()
    x, y = torch.randn(2, 1, 1, 16, 8, generator=generator, dtype=torch.float64).unbind(0)

    def both(v):
        return net.decode(net.encode(v)[0])

    torch.testing.assert_close(both(x + y) + both(torch.zeros_like(x)), both(x) + both(y))
    torch.testing.assert_close(net.encode(x)[1], torch.full((1, 4, 4, 2), -7.0, dtype=torch.float64))


@pytest.mark.parametrize("grid", [(48,), (16, 24), (8, 12, 8)])
def test_a_start_from_fields_is_their_principal_components(grid, generator):
    dims, latent = len(grid), 3
    fields = torch.randn(6, 2, *grid, generator=generator, dtype=torch.float64)
    fields = fields + sum(fields.roll(k, -1) for k in (1, 2, 3))
    net = ConvAutoencoder(2, latent, width=(20,), dims=dims, patch=2).double().eval()
    assert net.start(fields)
    z = net.encode(fields)[0]
    patches = to_patches(fields, 2).transpose(0, 1).flatten(1)
    lost = torch.linalg.eigvalsh(patches @ patches.T / patches.shape[1]).flip(0)[latent:]
    assert (net.decode(z) - fields).square().mean().item() == pytest.approx(lost.sum().item() / len(patches), rel=1e-6)
    codes = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(codes @ codes.T / codes.shape[1], torch.eye(latent, dtype=torch.float64))
    assert not ConvAutoencoder(2, latent, width=(20, 20), dims=dims).start(fields)  # points are repeated on the way
    assert not ConvAutoencoder(2, latent, width=(2 * 2**dims - 1,), dims=dims).start(fields)  # too narrow


def test_the_draw_of_a_code_is_the_mean_plus_its_standard_deviation_times_noise(generator):
    net = network()
    x = torch.randn(2, 2, 8, 12, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 2, 8, 12, generator=generator, dtype=torch.float64)
    estimate, mean, logvar = net(x, noise)
    eps = noise.flatten(1)[:, : 3 * 2 * 3].reshape(2, 3, 2, 3)
    torch.testing.assert_close(estimate, net.decode(mean + logvar.exp().sqrt() * eps))
    torch.testing.assert_close(net(x, torch.zeros_like(noise))[0], net.decode(net.encode(x)[0]))


def test_the_gradient_passes_straight_through_the_codebook(generator):
    """The encoder gets the gradient that the decoder has at the nearest vectors, as if nothing were in between."""
    net = network(codebook=7)
    z = torch.randn(1, 3, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 2, 16, 8, generator=generator, dtype=torch.float64)
    (net.decode(z) * weight).sum().backward()
    nearest = net.codebook.vectors[net.codebook.index(z)].movedim(-1, 1).detach().requires_grad_()
    (net.expand(nearest) * weight).sum().backward()
    torch.testing.assert_close(z.grad, nearest.grad)
    assert nearest.grad.abs().max() > 0
    torch.testing.assert_close(net.decode(z), net.expand(nearest))


def test_fidelity_of_a_known_loss(generator):
    """An encoder that keeps nothing: the error is the field itself, 1 in every band."""
    net = network(channels=1, padding="periodic")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    x = torch.randn(8, 1, 32, 24, generator=generator, dtype=torch.float64)
    found = fidelity(net, x - x.mean((2, 3), keepdim=True))
    assert found["rmse"] == pytest.approx(1.0, abs=0.02)
    assert all(row[2] == pytest.approx(1.0) for row in found["bands"])
    assert sum(row[3] for row in found["bands"]) == pytest.approx(1.0)
    assert found["codes"]["std"] == [0, 0, 0] and found["codes"]["noise"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dims": 4}, "dims must be 1, 2 or 3"),
        ({"latent": 0}, "latent must be >= 1"),
        ({"codebook": 1}, "at least 2 entries"),
        ({"padding": "mirror"}, "padding must be one of zeros, periodic, reflect"),
        ({"width": ()}, "width must name a level"),
    ],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(ValueError, match=match):
        ConvAutoencoder(1, **options)
