"""Networks for windows: exact linear estimation before training, and the shapes, lengths and levels they take."""

import pytest
import torch

from scidiff.assimilation import LinearGaussianChain, TrajectoryPrior
from scidiff.nn import FramesUNet, WindowNet
from scidiff.nn.window_net import layout
from scidiff.priors import DiffusionPrior, load_pretrained
from scidiff.priors.diffusion import precondition
from scidiff.priors.pretrained import save_pretrained

SPRING = LinearGaussianChain.damped_spring()


def exact(expert, prior) -> None:
    """The covariance of a Gaussian prior itself in place of that of draws."""
    values, basis = torch.linalg.eigh(prior.covariance / prior.scale**2)
    expert.mean.fill_(0)
    expert.basis.copy_(basis)
    expert.values.copy_(values)


@pytest.fixture
def net() -> WindowNet:
    net = WindowNet(2, 9, near=7, near_k=2, switch=0.3, width=8, blocks=1, embedding=4).double()
    exact(net.wide, SPRING.window(9))
    exact(net.short, SPRING.window(7))
    return net


def test_untrained_windows_are_linear_estimation(net, generator) -> None:
    """Above the switch in one window, below composed of short ones, row by row."""
    sigma = torch.tensor([0.01, 0.1, 0.5, 1.0, 50.0], dtype=torch.float64)
    window = SPRING.window(9)
    u = window.encode(SPRING.sample(5, 9, generator))
    u = u + sigma[:, None, None] * torch.randn(u.shape, generator=generator, dtype=u.dtype)
    found = precondition(net, u, sigma)
    short = TrajectoryPrior(SPRING.window(7), 2, 9, stride=3)
    assert torch.allclose(found[2:], window.denoise(u, sigma)[2:], atol=1e-9)
    assert torch.allclose(found[:2], short.denoise(u, sigma)[:2], atol=1e-9)
    assert float((short.denoise(u, sigma) - window.denoise(u, sigma))[1].abs().max()) > 1e-5


def test_windows_side_by_side_and_rows_alone(net, generator) -> None:
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    x = torch.randn(3, 2, 27, generator=generator, dtype=torch.float64)
    label = torch.tensor([0.01, 0.29, 4.0], dtype=torch.float64).log() / 4
    whole = net(x, label)
    parts = torch.cat([net(part, label) for part in x.split(9, 2)], 2)
    assert torch.allclose(whole, parts, atol=1e-12)
    assert torch.allclose(net(x[:1], label[:1]), whole[:1], atol=1e-12)
    with pytest.raises(ValueError, match="T = 9 states"):
        net(x[:, :, :8], label)


def test_calibration_finds_the_covariance(generator) -> None:
    net = WindowNet(2, 5, width=8, blocks=1, embedding=4).double()
    window = SPRING.window(5)
    u = window.encode(SPRING.sample(40_000, 5, generator))
    net.calibrate(u)
    noisy = u[:64] + 0.5 * torch.randn(u[:64].shape, generator=generator, dtype=u.dtype)
    right = window.denoise(noisy, torch.tensor(0.5))
    found = precondition(net, noisy, torch.full((64,), 0.5, dtype=u.dtype)).detach()
    assert float((found - right).norm() / right.norm()) < 0.02
    with pytest.raises(ValueError, match="more than 10 windows"):
        net.calibrate(u[:10])


def test_weights_and_coordinates_are_kept_whole(net, tmp_path, generator) -> None:
    card = {"channels": 2, "loc": 0.0, "scale": 1.0, "complex": False}
    save_pretrained(net, tmp_path / "p.safetensors", card, dtype=net.storage)
    u = torch.randn(2, 2, 9, generator=generator)
    prior = DiffusionPrior(net.float(), 2)
    for sigma in (0.01, 1.0):
        kept = load_pretrained(tmp_path / "p.safetensors").denoise(u, torch.tensor(sigma))
        assert torch.allclose(kept, prior.denoise(u, torch.tensor(sigma)), atol=1e-6)


@pytest.mark.parametrize(("length", "size", "k"), [(9, 9, 4), (20, 5, 1), (21, 7, 2), (8, 7, 3)])
def test_every_state_has_a_window_with_k_neighbours(length: int, size: int, k: int) -> None:
    starts, windows, places = layout(length, size, k)
    assert len(starts) == -(-(length - size) // (size - 2 * k)) + 1 and starts[-1] + size == length
    for state, (window, place) in enumerate(zip(windows.tolist(), places.tolist(), strict=True)):
        assert starts[window] + place == state and 0 <= place < size
        assert place >= min(k, state) and size - 1 - place >= min(k, length - 1 - state)


def test_untrained_frames_are_linear_estimation(generator) -> None:
    """A stationary field whose frames are correlated, against the dense formula."""
    frames, grid = 2, (4, 6)
    kernel = torch.rand(frames, frames, *grid, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.rfft2(kernel)
    n = frames * grid[0] * grid[1]
    e = torch.eye(n, dtype=torch.float64).reshape(n, frames, *grid)
    root = torch.fft.irfft2(torch.einsum("ijhw,njhw->nihw", spectrum, torch.fft.rfft2(e)), s=grid).reshape(n, n).T
    cov = root @ root.T
    net = FramesUNet(1, frames, grid, rows=1, width=(4,), blocks=1, embedding=4).double()
    values, basis = torch.linalg.eigh(torch.einsum("ijhw,kjhw->hwik", spectrum, spectrum.conj()))
    net.mean.fill_(0.7)
    net.basis.copy_(torch.view_as_real(basis))
    net.values.copy_(values)
    sigma = torch.tensor([0.05, 1.0, 10.0], dtype=torch.float64)
    u = torch.randn(3, 1, frames, *grid, generator=generator, dtype=torch.float64)
    found = precondition(net, u, sigma).reshape(3, n)
    for row, s, v in zip(found, sigma, u.reshape(3, n) - 0.7, strict=True):
        right = 0.7 + cov @ torch.linalg.solve(cov + s**2 * torch.eye(n, dtype=torch.float64), v)
        assert torch.allclose(row, right, atol=1e-7)
    drawn = 0.7 + torch.randn(20_000, n, generator=generator, dtype=torch.float64) @ root.T
    net.calibrate(drawn.reshape(-1, 1, frames, *grid))
    assert float((net.values - values).abs().max() / values.max()) < 0.05
    with pytest.raises(ValueError, match=r"expected \(B, 1, 2, 4, 6\)"):
        net(u[..., :3], sigma)
