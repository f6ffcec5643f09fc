"""From data to likelihoods: chi2 of the truth, averaging, systematic errors, gains, units of noise, bad input."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.operators.interferometry import (
    EHT_2017,
    NUFFTVisibilities,
    StationGains,
    Visibilities,
    VisibilityData,
    chi2,
    closure_likelihoods,
    draw_gains,
    of_amplitudes,
    of_closure_phases,
    of_visibilities,
    uv_tracks,
)
from scidiff.testing import check_adjoint, check_batch_independence

F64 = torch.float64
SHAPE, PIXEL = (20, 24), 2e-11  # radians: a field of 80 by 100 microarcseconds


def crescent() -> torch.Tensor:
    """A ring that is brighter in the south, 0.7 Jy."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 20, dtype=F64), torch.linspace(-1.2, 1.2, 24, dtype=F64), indexing="ij")
    ring = torch.exp(-0.5 * (((x**2 + y**2).sqrt() - 0.45) / 0.12) ** 2) * (1 + 0.6 * y)
    return 0.7 * (ring / ring.sum())[None, None]


def simulated(seed: int = 0, sigma: float = 2e-3, gains: bool = True, scans: int = 12) -> VisibilityData:
    generator = Generator().manual_seed(seed)
    tracks = uv_tracks(EHT_2017, 12.391, 229e9, np.linspace(1.0, 8.0, scans))
    vis = Visibilities(tracks.uv, SHAPE, PIXEL)(crescent())[0]
    if gains:
        g = draw_gains(scans, len(EHT_2017), generator=generator)
        vis = StationGains(g, tracks.stations, tracks.scans)(vis)
    std = sigma * (0.5 + torch.rand(len(vis), dtype=F64, generator=generator))
    vis = vis + std * torch.view_as_complex(torch.randn(len(vis), 2, dtype=F64, generator=generator))
    return VisibilityData(tracks.uv, tracks.stations, tracks.scans, vis, std)


def test_chi2_of_the_truth_is_one():
    """20 draws of noise and of gains: mean chi2 of every product within 4 standard errors of 1 (plus 2 % of theory)."""
    found: dict[str, list[float]] = {}
    sizes = {}
    for seed in range(20):
        data = simulated(seed)
        parts = closure_likelihoods(data, SHAPE, PIXEL, flux=(0.7, 0.01), min_snr=6.0)
        for name, value in chi2(parts, crescent()).items():
            found.setdefault(name, []).append(float(value))
        sizes = {name: part.y.numel() for name, part in zip(found, parts, strict=True)}
    assert set(found) == {"closure_phase", "log_closure_amplitude", "flux"}
    assert np.allclose(found["flux"], 0, atol=1e-20)
    for name in ("closure_phase", "log_closure_amplitude"):
        assert sizes[name] > 50
        assert np.mean(found[name]) == pytest.approx(1, abs=4 * math.sqrt(2 / sizes[name] / 20) + 0.02)
        assert np.std(found[name]) == pytest.approx(math.sqrt(2 / sizes[name]), rel=0.6)


def test_chi2_of_another_field_is_not_one():
    parts = closure_likelihoods(simulated(), SHAPE, PIXEL, min_snr=6.0)
    truth, sharper = (chi2(parts, x) for x in (crescent(), crescent() ** 2 / crescent().max()))
    assert all(float(value) > 5 for value in sharper.values())
    # Reflected through the centre, visibilities are conjugate: phases tell, amplitudes do not. Shifted, neither does.
    reflected = chi2(parts, crescent().flip(-1, -2))
    assert float(reflected["closure_phase"]) > 5
    assert float(reflected["log_closure_amplitude"]) == pytest.approx(float(truth["log_closure_amplitude"]), rel=1e-9)
    padded = torch.nn.functional.pad(crescent(), (3, 0, 2, 0))
    wide = closure_likelihoods(simulated(), padded.shape[-2:], PIXEL, min_snr=6.0)
    for name, value in chi2(wide, padded).items():
        assert float(value) == pytest.approx(float(truth[name]), rel=1e-9)


def test_calibrated_visibilities_and_amplitudes():
    chi = np.zeros(2)
    for seed in range(10):
        data = simulated(seed, gains=False)
        parts = (of_visibilities(data, SHAPE, PIXEL), of_amplitudes(data, SHAPE, PIXEL, min_snr=6.0))
        chi += [float(v) / 10 for v in chi2(parts, crescent()).values()]
    n = len(data)
    assert chi == pytest.approx([1, 1], abs=4 * math.sqrt(2 / n / 10) + 0.02)


def test_the_choice_of_rows_does_not_matter():
    """Other stations first, hence another minimal set: the same likelihood, because the covariance is full."""
    data = simulated()
    x = crescent() + 1e-6 * torch.rand(1, 1, *SHAPE, dtype=F64, generator=Generator().manual_seed(1))
    first = of_closure_phases(data, SHAPE, PIXEL, von_mises=False)
    renamed = VisibilityData(data.uv, 6 - data.stations, data.scans, data.vis, data.sigma)
    order = torch.randperm(len(data), generator=Generator().manual_seed(2))
    second = of_closure_phases(renamed.select(order), SHAPE, PIXEL, von_mises=False)
    third = of_closure_phases(
        VisibilityData(-data.uv, data.stations.flip(1), data.scans, data.vis.conj(), data.sigma),
        SHAPE,
        PIXEL,
        von_mises=False,
    )
    expected = first.residual(x).square().sum()
    assert float(second.residual(x).square().sum()) == pytest.approx(float(expected), rel=1e-9)
    assert float(third.residual(x).square().sum()) == pytest.approx(float(expected), rel=1e-9)


def test_rows_types_and_fast_transform():
    pytest.importorskip("finufft", reason="the extra nufft is not installed")
    data = simulated()
    x = torch.cat([crescent(), crescent().flip(-1), crescent().flip(-2)])
    fast = closure_likelihoods(data, SHAPE, PIXEL, transform=lambda *a: NUFFTVisibilities(*a, tolerance=1e-12))
    for slow, part in zip(closure_likelihoods(data, SHAPE, PIXEL), fast, strict=True):
        assert torch.allclose(part.residual(x), slow.residual(x), atol=1e-6)
        check_batch_independence(slow.residual, x)
    single = VisibilityData(data.uv, data.stations, data.scans, data.vis.to(torch.complex64), data.sigma)
    parts = closure_likelihoods(single, SHAPE, PIXEL, flux=(0.7, 0.01))
    assert all(part.y.dtype == torch.float32 == part.residual(x.float()).dtype for part in parts)


def test_averaging_keeps_the_signal_and_lowers_the_noise():
    """Eight copies of every visibility, half of them listed backwards: their mean has sigma / sqrt(8)."""
    data = simulated(sigma=1e-3, gains=False)
    generator = Generator().manual_seed(5)
    truth = Visibilities(data.uv, SHAPE, PIXEL)(crescent())[0].repeat(8)
    sigma = data.sigma.repeat(8)
    vis = truth + sigma * torch.view_as_complex(torch.randn(len(sigma), 2, dtype=F64, generator=generator))
    uv, pairs = data.uv.repeat(8, 1), data.stations.repeat(8, 1)
    back = torch.arange(len(vis)) % 2 == 1
    copies = VisibilityData(
        torch.where(back[:, None], -uv, uv),
        torch.where(back[:, None], pairs.flip(1), pairs),
        torch.arange(8).repeat_interleave(len(data)) + 8 * data.scans.repeat(8),
        torch.where(back, vis.conj(), vis),
        sigma,
    )
    mean = copies.averaged(copies.scans // 8)
    assert len(mean) == len(data) and bool((mean.stations[:, 0] < mean.stations[:, 1]).all())
    assert mean.sigma.sort().values.tolist() == pytest.approx((data.sigma / math.sqrt(8)).sort().values.tolist())
    part = of_visibilities(mean, SHAPE, PIXEL)
    assert float(part.chi2(crescent())) == pytest.approx(1, abs=4 * math.sqrt(1 / len(mean)))


def test_systematic_errors_add_in_squares():
    data = simulated()
    wider = data.with_systematic(0.1)
    assert torch.allclose(wider.sigma**2 - data.sigma**2, (0.1 * data.vis.abs()) ** 2, rtol=1e-9)


def test_gains_are_linear_and_change_with_the_scan():
    generator = Generator().manual_seed(3)
    gains = draw_gains(2, 3, 0.3, 0.5, generator)
    operator = StationGains(gains, [[0, 1], [2, 1], [0, 2]], [1, 0, 1])
    expected = torch.stack([gains[1, 0] * gains[1, 1].conj(), gains[0, 2] * gains[0, 1].conj()])
    assert torch.allclose(operator(torch.ones(1, 3, dtype=torch.complex128))[0, :2], expected)
    assert check_adjoint(operator, (3,), dtype=torch.complex128) < 1e-12
    with pytest.raises(ValueError, match="gains of 3 stations, but a visibility of station 3"):
        StationGains(gains[0], [[0, 3]])
    with pytest.raises(TypeError, match="complex"):
        StationGains(gains.abs()[0], [[0, 1]])


def test_law_of_the_gains():
    g = draw_gains(4000, 5, 0.2, 0.3, Generator().manual_seed(1))
    assert float(g.abs().log().std()) == pytest.approx(0.2, rel=0.03)
    assert float(g.angle().std()) == pytest.approx(0.3, rel=0.03)
    assert float(draw_gains(4000, 5, 0.2, None, Generator().manual_seed(1)).sgn().mean().abs()) < 0.03


def test_bad_data():
    data = simulated()
    parts = [data.uv, data.stations, data.scans, data.vis, data.sigma]

    def replaced(place, value):
        return VisibilityData(*[value if k == place else p for k, p in enumerate(parts)])

    with pytest.raises(TypeError, match="vis must be complex"):
        replaced(3, data.vis.abs())
    with pytest.raises(ValueError, match="scans must have shape"):
        replaced(2, data.scans[:-1])
    with pytest.raises(ValueError, match="sigma must be positive"):
        replaced(4, 0 * data.sigma)
    with pytest.raises(ValueError, match="vis holds NaN"):
        replaced(3, data.vis * torch.nan)
    with pytest.raises(ValueError, match="no visibility has a signal to noise of 1e\\+06"):
        of_closure_phases(data, SHAPE, PIXEL, min_snr=1e6)
    with pytest.raises(ValueError, match="no scan has a closed loop"):
        of_closure_phases(replaced(2, torch.arange(len(data))), SHAPE, PIXEL)
