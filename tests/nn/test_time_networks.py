"""Networks that are told a lead time and driven by streams."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from scidiff.nn import FNO, MeshCNN, TimeUNet, UNet
from scidiff.nn.stochastic import Dropout, noise_fields
from scidiff.rng import Streams

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "TimeUNet": lambda **k: TimeUNet(2, 3, (8, 12), padding="periodic", embedding=8, horizon=4, **k),
    "FNO": lambda **k: FNO(2, 3, 6, 3, 2, horizon=4, **k),
    "MeshCNN": lambda **k: MeshCNN(2, 3, 6, (5, 3), padding="periodic", embedding=8, horizon=4, **k),
}
LEAD = torch.tensor([1.0, 2.5, 3.0], dtype=torch.float64)


def made(name: str, **options: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        net = NETWORKS[name](**options).double().eval()
    for p in net.parameters():  # zeros of the initialisation would hide what they multiply
        if not p.abs().any():
            nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(4))
    return net


@pytest.fixture
def x(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(3, 2, 6, 10, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("options", [{"noise": 2}, {"dropout": 0.5}])
@pytest.mark.parametrize("name", NETWORKS)
def test_randomness_comes_from_the_streams_alone(name: str, options: dict[str, object], x: torch.Tensor) -> None:
    net = made(name, **options)
    assert net.stochastic and not made(name).stochastic
    torch.testing.assert_close(net(x, LEAD), net(x, LEAD), rtol=0, atol=0)
    one = net(x, LEAD, Streams(1, range(3)))
    assert torch.equal(one, net(x, LEAD, Streams(1, range(3))))
    assert not torch.allclose(one, net(x, LEAD, Streams(2, range(3))))
    assert not torch.allclose(one, net(x, LEAD))
    torch.testing.assert_close(net(x[1:2], LEAD[1:2], Streams(1, [1])), one[1:2])


@pytest.mark.parametrize("name", NETWORKS)
def test_shape_time_and_shifts(name: str, x: torch.Tensor) -> None:
    net = made(name)
    y = net(x, LEAD)
    assert y.shape == (3, 3, 6, 10) and y.dtype == torch.float64
    assert not torch.allclose(net(x, LEAD + 0.5), y)
    torch.testing.assert_close(net(x.roll((2, 4), (2, 3)), LEAD), y.roll((2, 4), (2, 3)))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_configuration_makes_the_network_again(name: str, x: torch.Tensor) -> None:
    net = made(name, noise=1, dropout=0.2)
    twin = type(net)(**net.config).double().eval()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x, LEAD, Streams(1, range(3))), net(x, LEAD, Streams(1, range(3))))


def test_without_randomness_the_unet_is_the_plain_one(x: torch.Tensor) -> None:
    plain = UNet(2, 3, (8, 12), 1, embedding=8, padding="periodic").double()
    timed = made("TimeUNet")
    plain.load_state_dict(timed.state_dict())
    torch.testing.assert_close(timed(x, LEAD), plain(x, LEAD / 4))


def test_the_vector_acts_on_the_whole_field() -> None:
    net = TimeUNet(1, 1, (8,), embedding=8, padding="periodic", latent=4).double()
    y = net(torch.ones(2, 1, 4, 6).double(), torch.ones(2), Streams(0, range(2)))
    assert y.std((2, 3)).max() < 1e-12 and (y[0] - y[1]).abs().min() > 1e-6


@pytest.mark.parametrize("channels", [False, True])
def test_dropout_keeps_the_mean_and_drops_the_stated_part(channels: bool) -> None:
    h = torch.ones(40, 50, 6, 7)
    y = Dropout(0.3, channels)(h, Streams(0, range(40)))
    kept = (y > 0).float()
    assert kept.mean().item() == pytest.approx(0.7, abs=5 * (0.21 / (40 * 50)) ** 0.5)
    assert torch.equal(y, kept / 0.7)
    assert bool((kept.std((2, 3)) == 0).all()) is channels
    assert torch.equal(Dropout(0.3)(h, None), h)


def test_noise_fields_are_white_and_one_draw_per_row() -> None:
    like = torch.zeros(30, 1, dtype=torch.float64)
    a, b = noise_fields(Streams(0, range(30)), [(2, 8, 9), (3,)], like)
    assert a.shape == (30, 2, 8, 9) and b.shape == (30, 3) and a.dtype == torch.float64
    assert a.mean().abs() < 5 / a.numel() ** 0.5 and (a.var() - 1).abs() < 5 * (2 / a.numel()) ** 0.5


def test_gradients_reach_every_parameter(x: torch.Tensor) -> None:
    for name in NETWORKS:
        net = made(name, noise=1)
        net(x, LEAD, Streams(0, range(3))).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters()), name


def test_published_size_of_the_mesh_network() -> None:
    """0.48 million parameters, as counted in the original code; ours differs by how the time enters."""
    assert sum(p.numel() for p in MeshCNN(4, 4).parameters()) == pytest.approx(0.48e6, rel=0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MeshCNN(1, 1, kernels=(4,)),
        lambda: MeshCNN(1, 1, padding="mirror"),
        lambda: FNO(1, 1, modes=0),
        lambda: TimeUNet(1, noise=-1),
        lambda: Dropout(1.0),
    ],
)
def test_bad_arguments(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match="got"):
        make()


def test_a_grid_too_small_for_the_wavenumbers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        made("FNO")(torch.zeros(1, 2, 4, 10).double(), LEAD[:1])
