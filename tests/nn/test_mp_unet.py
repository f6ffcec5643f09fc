"""The magnitude-preserving U-Net: unit magnitudes at every layer, weight norms that do not move while training."""

import math

import pytest
import torch

from scidiff.nn import MPUNet
from scidiff.nn.mp_unet import MPBlock, MPConv, mp_cat, mp_silu, mp_sum, pixel_norm
from scidiff.training import TrainingConfig, train


def rms(x):
    return x.double().square().mean().sqrt().item()


def test_layers_keep_unit_magnitude(generator):
    """On white input, to the sampling error of 2^19 numbers (4 standard errors and the digits of 0.596)."""
    a, b = torch.randn(2, 8, 32, 32, 32, generator=generator)
    assert rms(mp_silu(a)) == pytest.approx(1, abs=5e-3)
    assert rms(mp_sum(a, b, 0.3)) == pytest.approx(1, abs=5e-3)
    joined = mp_cat(a, b[:, :8], 0.5)
    assert rms(joined) == pytest.approx(1, abs=5e-3)
    assert rms(joined[:, 32:]) ** 2 * 8 == pytest.approx(rms(joined[:, :32]) ** 2 * 32, rel=0.03)
    torch.testing.assert_close(pixel_norm(3 * a).square().mean(1), torch.ones(8, 32, 32), rtol=1e-5, atol=1e-5)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        for size in (1, 3):
            out = MPConv(2, 32, 64, size, "periodic")(a)
            assert rms(out) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_activations_keep_unit_magnitude(dims, generator):
    """Every block, at every level, down and up: between 0.6 and 1.4 (pooling averages, neighbours are correlated)."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        net = MPUNet(3, width=(32, 48, 64), blocks=2, dims=dims, embedding=32, attention=(2,), padding="periodic")
    seen = []
    for module in net.modules():
        if isinstance(module, MPBlock):
            module.register_forward_hook(lambda m, i, out: seen.append(rms(out)))
    grid = {1: (256,), 2: (32, 32), 3: (8, 16, 8)}[dims]
    with torch.no_grad():
        out = net(torch.randn(4, 3, *grid, generator=generator), torch.linspace(-1.5, 1.1, 4))
        assert not out.any()  # the output gain starts at zero
        net.gain.fill_(1.0)
        out = net(torch.randn(4, 3, *grid, generator=generator), torch.linspace(-1.5, 1.1, 4))
    assert len(seen) == 20
    assert 0.6 < min(seen) and max(seen) < 1.4
    assert 0.6 < rms(out) < 1.4


def test_weights_do_not_drift(tmp_path):
    """After training steps at a large rate, every row of every weight has its initial norm; they did move."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        net = MPUNet(1, width=(8, 8), blocks=1, dims=1, embedding=8)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    source = lambda g, crop: torch.randn(1, *crop, generator=g).cumsum(1) / 3  # noqa: E731
    train(
        net,
        source,
        TrainingConfig(steps=30, batch=4, crops=((16,),), warmup=1, learning_rate=0.05, bf16=False),
        tmp_path,
    )
    moved = 0.0
    for name, module in net.named_modules():
        if isinstance(module, MPConv):
            w = module.weight.detach()
            torch.testing.assert_close(w.flatten(1).norm(dim=1), torch.full((len(w),), math.sqrt(w[0].numel())))
            moved = max(moved, (w - before[f"{name}.weight"]).abs().max().item())
    assert moved > 0.1
    assert net.gain.abs() > 1e-3


def test_norms_of_weights_do_not_matter(generator):
    """What constrain removes has no effect on the output, so it is no constraint on the function."""
    net = MPUNet(1, width=(8,), blocks=1, dims=1, embedding=8).double()
    net.gain.data.fill_(1.0)
    x, label = torch.randn(2, 1, 8, generator=generator, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    out = net(x, label)
    for p in net.parameters():
        if p.ndim:
            p.data *= 3
    torch.testing.assert_close(net(x, label), out)
    net.constrain()
    torch.testing.assert_close(net(x, label), out)
