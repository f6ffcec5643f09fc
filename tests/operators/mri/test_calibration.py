"""Coil maps, noise and the check of the forward model on synthetic scans whose truth is known."""

import sys

import pytest
import torch

from scidiff.operators.mri import (
    CartesianMRI,
    calibration_noise,
    cg_sense,
    espirit,
    estimate_noise,
    fft2c,
    held_back_chi2,
    masks,
    prewhiten,
)
from scidiff.operators.mri.espirit import calibration_block
from scidiff.operators.mri.noise import corner_covariance, outer_covariance

COILS = 4


def coil_maps(rows, cols):
    """Smooth analytic sensitivities of unit norm at the points (rows, cols) in fields of view: (J, H, W)."""
    places = [(-0.7, -0.3), (0.6, -0.6), (-0.1, 0.8), (0.7, 0.5)]
    maps = []
    for j, (a, b) in enumerate(places):
        size = (-((rows[:, None] - a) ** 2 + (cols[None, :] - b) ** 2) / 1.2).exp()
        maps.append(torch.polar(size, 1.5 * (j + 1) * rows[:, None] * (-1) ** j + j * cols[None, :]))
    maps = torch.stack(maps)
    return maps / maps.abs().square().sum(0).sqrt()


def head(rows, cols, generator, extent=(0.36, 0.4)):
    """Textured ellipse with a smooth phase (H, W), and where it is."""
    inside = (rows[:, None] / extent[0]) ** 2 + (cols[None, :] / extent[1]) ** 2 < 1
    texture = 1 + 0.3 * torch.randn(len(rows), len(cols), generator=generator, dtype=torch.float64)
    return torch.polar(inside * texture.abs(), rows[:, None] + 2 * cols[None, :] ** 2), inside


def axis(n, step=1.0):
    return (torch.arange(n, dtype=torch.float64) - n // 2) / n * step


def noise(shape, generator, std=1.0):
    return std * 2**0.5 * torch.randn(*shape, dtype=torch.complex128, generator=generator)


def scan(generator, size=(48, 44), std=1.0, snr=100.0):
    rows, cols = axis(size[0]), axis(size[1])
    maps = coil_maps(rows, cols)
    x, inside = head(rows, cols, generator)
    return std * (fft2c(maps * snr * x) + noise((COILS, *size), generator)), maps, x, inside


def test_espirit_recovers_smooth_maps_inside_the_object(generator):
    kspace, truth, _, inside = scan(generator)
    mask = masks.poisson_disc(kspace.shape[1:], 4, calibration=20, generator=generator)
    result = espirit(kspace * mask, mask, kernel=5)
    maps = result.maps[:, 0]
    assert result.maps.shape == (COILS, 1, 48, 44) and result.eigenvalues.shape == (1, 48, 44)
    assert torch.allclose(maps.abs().square().sum(0), torch.ones(48, 44, dtype=torch.float64))
    # A map is known up to a phase at every pixel; the projector on it has none.
    difference = torch.einsum("ihw,jhw->ijhw", maps, maps.conj()) - torch.einsum("ihw,jhw->ijhw", truth, truth.conj())
    error = difference.abs().square().sum((0, 1)).sqrt()[inside]
    assert float(error.mean()) < 0.01 and float(error.max()) < 0.06
    assert float(result.eigenvalues[0][inside].min()) > 0.97
    assert float(result.eigenvalues[0, :4, :4].max()) < 0.8  # air


def test_espirit_phase_is_smooth_and_global_scale_free(generator):
    kspace, _, _, inside = scan(generator)
    maps = espirit(kspace, kernel=5).maps[:, 0]
    step = (maps[:, 1:] - maps[:, :-1]).abs().amax(0)
    # The truth moves by less than 0.25 a pixel; a random sign would move it by 2.
    assert float(step[inside[1:] & inside[:-1]].max()) < 0.25
    assert torch.allclose(espirit(1e-6 * kspace, kernel=5, noise=1e-6).maps[:, 0], maps, atol=1e-6)


def test_espirit_in_chunks_is_the_same(generator, monkeypatch):
    module = sys.modules["scidiff.operators.mri.espirit"]  # the package exports the function of the same name
    kspace = scan(generator)[0]
    whole = espirit(kspace, kernel=4, sets=2)
    original = module._eigenmaps
    monkeypatch.setattr(module, "_eigenmaps", lambda *a: original(*a, limit=1))
    split = espirit(kspace, kernel=4, sets=2)
    assert torch.allclose(split.maps, whole.maps) and torch.allclose(split.eigenvalues, whole.eigenvalues)


def test_espirit_crops_when_asked(generator):
    kspace = scan(generator)[0]
    result = espirit(kspace, kernel=5, crop=0.95)
    power = result.maps.abs().square().sum(0)
    assert torch.equal(power > 0.5, result.eigenvalues > 0.95)
    assert float(power[0, 0, 0]) == 0


def test_two_sets_explain_an_object_larger_than_the_field_of_view(generator):
    # The object is 1.3 fields of view wide; every second column of the k-space of a doubled field of view folds it.
    size, std = (44, 40), 0.01
    rows, cols = axis(size[0]), axis(2 * size[1], 2.0)
    x, _ = head(rows, cols, generator, extent=(0.4, 0.65))
    wide = fft2c(coil_maps(rows, cols) * x)
    kspace = wide[:, :, size[1] % 2 :: 2] / std + noise((COILS, *size), generator)
    mask = torch.ones(size, dtype=torch.bool)
    one = espirit(kspace, kernel=5, sets=1, calibration=(24, 24))
    two = espirit(kspace, kernel=5, sets=2, calibration=(24, 24))
    fit = [held_back_chi2(kspace, mask, m.maps, generator=generator).fit for m in (one, two)]
    assert fit[0] > 5 and fit[1] < 1.3, fit
    assert float(two.eigenvalues[1, 22, 0]) > 0.9  # folded edge
    assert float(two.eigenvalues[1, 22, 20]) < 0.9  # middle
    assert float(two.maps[:, 1, 22, 0].abs().square().sum()) > 0.5


def known_covariance(generator):
    root = torch.randn(COILS, COILS, dtype=torch.complex128, generator=generator)
    return root @ root.mH + 0.5 * torch.eye(COILS)


def test_noise_covariance_is_recovered(generator):
    truth = known_covariance(generator)
    factor = torch.linalg.cholesky(truth)
    rows, cols = axis(96), axis(90)
    signal = fft2c(coil_maps(rows, cols) * (-(rows[:, None] ** 2 + cols**2) / 0.02).exp()) * 50  # smooth: no corners
    kspace = signal + torch.einsum("ij,jhw->ihw", factor, noise((COILS, 96, 90), generator))
    estimate = estimate_noise(kspace)
    for covariance, samples in (
        (estimate.covariance, estimate.samples),
        outer_covariance(kspace, torch.ones(96, 90, dtype=torch.bool)),
        corner_covariance(kspace),
    ):
        relative = torch.linalg.solve(factor, torch.linalg.solve(factor, covariance).mH)  # the identity, if right
        error = (relative - torch.eye(COILS)).abs().square().sum().sqrt()
        # Entries scatter by 1/sqrt(samples): the norm by J / sqrt(samples); three times that never happens.
        assert float(error) < 3 * COILS / samples**0.5
        assert torch.equal(covariance, covariance.mH) or torch.allclose(covariance, covariance.mH)
    assert set(estimate.candidates) == {"k-space", "image"}
    white, white_maps = prewhiten(truth, kspace - signal, coil_maps(rows, cols))
    flat = white.flatten(1)
    identity = flat @ flat.mH / (2 * flat.shape[1])
    assert float((identity - torch.eye(COILS)).abs().max()) < 5 / (96 * 90) ** 0.5
    assert torch.allclose(torch.einsum("ij,jhw->ihw", factor, white_maps), coil_maps(rows, cols))


@pytest.mark.parametrize("level", [1.0, 1.5])
def test_calibration_matrix_tells_the_noise_level(level, generator):
    kspace = scan(generator, std=level)[0]
    mask = torch.zeros(48, 44, dtype=torch.bool)
    mask[12:36, 10:34] = True
    assert abs(calibration_noise(kspace * mask, mask, generator=generator) / level - 1) < 0.08


def test_check_accepts_the_true_model_and_rejects_wrong_ones(generator):
    kspace, maps, _, _ = scan(generator, std=0.01)
    mask = masks.poisson_disc((48, 44), 2.5, calibration=16, generator=generator)
    kspace = kspace * mask
    covariance = 1e-4 * torch.eye(COILS, dtype=torch.complex128)
    true = held_back_chi2(kspace, mask, maps, covariance, splits=2, generator=generator)
    assert abs(true.held_back - 1) < 4 * true.held_back_error
    assert abs(true.fit - 1) < 0.08
    assert true.held_back_raw > true.expected * 0.8 and true.measured == 2 * COILS * int(mask.sum())
    optimistic = held_back_chi2(kspace, mask, maps, covariance / 4, generator=generator)
    assert optimistic.fit > 2.5  # noise half as large as it is: four, less what the weaker penalty fits away
    swapped = held_back_chi2(kspace, mask, maps.flip(0), covariance, generator=generator)
    assert swapped.held_back > 1.3 and swapped.fit > 1.3


def test_cg_sense_is_the_dense_ridge_solution(generator):
    size = (6, 5)
    maps = torch.randn(2, *size, dtype=torch.complex128, generator=generator)
    mask = torch.rand(*size, generator=generator) < 0.6
    operator = CartesianMRI(maps, mask)
    eye = torch.eye(30, dtype=torch.complex128).reshape(30, 1, *size)
    matrix = operator(eye).flatten(1).T
    fourier = fft2c(eye).flatten(1).T
    spectrum = torch.rand(*size, generator=generator, dtype=torch.float64) + 0.1
    weight = (torch.rand(2, operator.samples, generator=generator) < 0.8).double()
    y = torch.randn(1, 2, operator.samples, dtype=torch.complex128, generator=generator)
    penalty = fourier.mH @ (fourier / spectrum.flatten()[:, None])
    dense = torch.linalg.solve(
        matrix.mH @ (weight.flatten()[:, None] * matrix) + penalty, matrix.mH @ (weight * y).flatten()
    )
    found = cg_sense(operator, y, spectrum, weight, iterations=200, tolerance=1e-12)
    assert torch.allclose(found.flatten(), dense, atol=1e-9)


def test_names_what_is_wrong(generator):
    kspace = scan(generator)[0]
    empty = torch.zeros(48, 44, dtype=torch.bool)
    with pytest.raises(ValueError, match="centre of k-space"):
        espirit(kspace, empty)
    small = empty.clone()
    small[22:26, 20:24] = True
    with pytest.raises(ValueError, match="too small for 6 x 6"):
        espirit(kspace, small)
    with pytest.raises(ValueError, match="fewer than"):
        calibration_block(kspace, small, (8, 8))
    with pytest.raises(ValueError, match="number of coils 4"):
        espirit(kspace, sets=5)
    with pytest.raises(ValueError, match="only zeros"):
        espirit(0 * kspace, ~empty)
    with pytest.raises(ValueError, match="complex"):
        espirit(kspace.real)
    with pytest.raises(ValueError, match="samples nothing"):
        estimate_noise(kspace, empty)
    with pytest.raises(ValueError, match="too few"):
        estimate_noise(kspace, small)
    dead = kspace.clone()
    dead[2] = 0
    with pytest.raises(ValueError, match="singular"):
        estimate_noise(dead)
    with pytest.raises(ValueError, match="positive definite"):
        prewhiten(torch.zeros(COILS, COILS), kspace)
    with pytest.raises(ValueError, match="first dimension"):
        prewhiten(torch.eye(3), kspace)
    with pytest.raises(ValueError, match="fraction"):
        held_back_chi2(kspace, ~empty, kspace, fraction=1.0)


def test_real_scan_is_explained(real_data):
    import numpy as np

    path = real_data / "mri" / "raw" / "brain8ch_cartesian_ksp.npy"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    raw = torch.from_numpy(np.load(path, allow_pickle=False))
    estimate = estimate_noise(raw)
    (kspace,) = prewhiten(estimate.covariance, raw)
    mask = raw.abs().sum(0) > 0
    assert 0.9 < calibration_noise(kspace, mask, generator=torch.Generator().manual_seed(0)) < 1.2
    # The middle of k-space, a coarser image, holds most of the data and takes a tenth of the time.
    kspace, mask = (a[..., 115 - 40 : 115 + 40, 90 - 32 : 90 + 32] for a in (kspace, mask))
    check = held_back_chi2(kspace, mask, espirit(kspace, mask).maps, generator=torch.Generator().manual_seed(0))
    assert 0.9 < check.fit < 1.3 and 0.9 < check.held_back < 1.3 and 0.9 < check.held_back_outside < 1.3


@pytest.mark.parametrize("snr", [10.0, 30.0, 100.0])
@pytest.mark.parametrize("size", [(20, 20), (48, 44)])
def test_espirit_defaults_hold_at_every_noise_level(snr, size, generator):
    kspace, truth, _, inside = scan(generator, snr=snr)
    maps = espirit(kspace, kernel=5, calibration=size).maps[:, 0]
    overlap = (maps.conj() * truth).sum(0).abs()[inside]
    # The sine of the angle between map and truth falls with the noise: 0.4 over the signal-to-noise ratio of a pixel.
    assert float((1 - overlap.square()).clamp_min(0).sqrt().mean()) < 0.006 + 0.5 / snr


def test_espirit_refuses_data_that_are_not_whitened(generator):
    kspace = scan(generator)[0]
    with pytest.raises(ValueError, match="nothing in the calibration region is signal; prewhiten"):
        espirit(1e-6 * kspace)
    with pytest.raises(ValueError, match="all of the calibration region is signal; prewhiten"):
        espirit(1e6 * kspace)
