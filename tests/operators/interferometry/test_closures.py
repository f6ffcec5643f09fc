"""Closure quantities: counts, ranks, what stations cannot change, brute-force twins, Monte Carlo of the noise."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.linalg import BlockDiagonal
from scidiff.operators.interferometry import (
    ClosurePhases,
    LogClosureAmplitudes,
    Visibilities,
    VisibilityAmplitudes,
    debiased,
    quadrangles,
    triangles,
    wrap,
)
from scidiff.testing import check_batch_independence, check_vjp

F64 = torch.float64


def full_scans(stations: int, scans: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All baselines of every scan in random order and direction."""
    random = np.random.default_rng(seed)
    pairs, times = [], []
    for scan in range(scans):
        for i, j in itertools.combinations(range(stations), 2):
            pairs.append((i, j) if random.random() < 0.5 else (j, i))
            times.append(scan)
    order = random.permutation(len(pairs))
    return np.array(pairs)[order], np.array(times)[order]


def visibilities(n: int, rows: int = 1, seed: int = 1) -> torch.Tensor:
    generator = Generator().manual_seed(seed)
    return (0.5 + torch.rand(rows, n, dtype=F64, generator=generator)) * torch.exp(
        6.28j * torch.rand(rows, n, dtype=F64, generator=generator)
    )


@pytest.mark.parametrize("stations", [3, 4, 5, 7, 8])
def test_counts_and_ranks(stations):
    n = stations
    pairs, times = full_scans(n, scans=2)
    phases, amplitudes = triangles(pairs, times), quadrangles(pairs, times)
    assert len(phases) == 2 * (n - 1) * (n - 2) // 2
    assert len(amplitudes) == 2 * n * (n - 3) // 2
    for closures in (phases, amplitudes):
        if len(closures):
            assert torch.linalg.matrix_rank(closures.design()) == len(closures)


@pytest.mark.parametrize("weighted", [False, True])
def test_nothing_is_lost_where_baselines_are_missing(weighted):
    """Every closed triangle and quadrangle is a combination of the rows that were kept."""
    pairs, times = full_scans(6)
    seen = np.random.default_rng(3).random(len(pairs)) < 0.75
    pairs, times = pairs[seen], times[seen]
    std = np.random.default_rng(4).random(len(pairs)) + 0.1 if weighted else None
    where = {}
    for n, (i, j) in enumerate(pairs.tolist()):
        where[i, j], where[j, i] = (n, 1.0), (n, -1.0)

    def rows(walks, signed):
        found = []
        for walk in walks:
            if all(side in where for side in walk):
                row = np.zeros(len(pairs))
                for number, side in enumerate(walk):
                    row[where[side][0]] += where[side][1] if signed else (-1) ** number
                found.append(row)
        return torch.as_tensor(np.array(found))

    every = itertools.permutations
    loops = rows([((i, j), (j, k), (k, i)) for i, j, k in every(range(6), 3)], True)
    squares = rows([((i, j), (j, k), (k, m), (m, i)) for i, j, k, m in every(range(6), 4)], False)
    for closures, walks in ((triangles(pairs, times, std), loops), (quadrangles(pairs, times, std), squares)):
        design = closures.design()
        rank = torch.linalg.matrix_rank(design)
        assert 0 < len(closures) == rank == torch.linalg.matrix_rank(torch.cat([design, walks]))


def test_triangles_of_small_variance_are_preferred():
    """With station 3 of four the most sensitive by far, all three triangles contain it."""
    pairs, times = full_scans(4)
    std = np.where((pairs == 3).any(1), 0.01, 1.0)
    assert bool((triangles(pairs, times, std).stations == 3).any(1).all())
    assert bool((triangles(pairs, times).stations == 0).any(1).all())


def test_values_are_those_of_the_definitions():
    pairs, times = full_scans(5, scans=2)
    v = visibilities(len(pairs))[0]
    table = {}
    for n, ((i, j), t) in enumerate(zip(pairs.tolist(), times.tolist(), strict=True)):
        table[t, i, j], table[t, j, i] = v[n], v[n].conj()
    phases, amplitudes = triangles(pairs, times), quadrangles(pairs, times)
    found = ClosurePhases(lambda x: x, phases).phases(v)
    for row, (i, j, k) in enumerate(phases.stations.tolist()):
        t = int(phases.scan[row])
        assert found[row] == pytest.approx(float((table[t, i, j] * table[t, j, k] * table[t, k, i]).angle()), abs=1e-12)
    found = LogClosureAmplitudes(lambda x: x, amplitudes)(v)
    for row, (i, j, k, m) in enumerate(amplitudes.stations.tolist()):
        t = int(amplitudes.scan[row])
        ratio = table[t, i, j] * table[t, k, m] / table[t, i, k] / table[t, j, m]
        assert found[row] == pytest.approx(float(ratio.abs().log()), abs=1e-12)


def test_stations_cannot_change_closures():
    pairs, times = full_scans(6, scans=3)
    v = visibilities(len(pairs), rows=2)
    generator = Generator().manual_seed(5)
    g = (1 + torch.rand(3, 6, dtype=F64, generator=generator)) * torch.exp(
        6j * torch.rand(3, 6, dtype=F64, generator=generator)
    )
    corrupted = v * g[times, pairs[:, 0]] * g[times, pairs[:, 1]].conj()
    phases = ClosurePhases(lambda x: x, triangles(pairs, times))
    amplitudes = LogClosureAmplitudes(lambda x: x, quadrangles(pairs, times))
    assert float(wrap(phases.phases(corrupted) - phases.phases(v)).abs().max()) < 1e-12
    assert torch.allclose(amplitudes(corrupted), amplitudes(v), rtol=0, atol=1e-12)
    # ... and nothing else is left: the rows span all that gains cannot reach
    assert len(phases.closures) + 3 * 5 == len(v[0]) == len(amplitudes.closures) + 3 * 6


def test_differences_are_taken_around_the_circle():
    pairs, times = full_scans(3)
    closures = triangles(pairs, times)
    v = visibilities(3, rows=4)
    psi = ClosurePhases(lambda x: x, closures).phases(v)
    reference = psi[0] + 2 * torch.pi - 0.1  # a whole turn and a tenth away
    arc = ClosurePhases(lambda x: x, closures, reference, von_mises=False)(v[:1])
    chord = ClosurePhases(lambda x: x, closures, reference)(v[:1])
    assert arc.item() == pytest.approx(0.1, abs=1e-12)
    assert chord.item() == pytest.approx(2 * math.sin(0.05), abs=1e-12)
    any_chord = ClosurePhases(lambda x: x, closures, torch.tensor([1.0]))(v)
    assert torch.allclose(any_chord.square(), 2 - 2 * (psi - 1).cos(), atol=1e-12)  # the von Mises exponent


def operators(n_stations: int = 5):
    pairs, times = full_scans(n_stations, scans=2)
    uv = 5e9 * torch.randn(len(pairs), 2, dtype=F64, generator=Generator().manual_seed(2))
    vis = Visibilities(uv, (6, 9), 1e-11)
    phases, amplitudes = triangles(pairs, times), quadrangles(pairs, times)
    reference = torch.linspace(-3, 3, len(phases), dtype=F64)
    return {
        "chord": ClosurePhases(vis, phases, reference),
        "arc": ClosurePhases(vis, phases, reference, von_mises=False),
        "log amplitude": LogClosureAmplitudes(vis, amplitudes),
        "amplitude": VisibilityAmplitudes(vis),
    }


@pytest.mark.parametrize("name", ["chord", "arc", "log amplitude", "amplitude"])
def test_gradients_and_rows(name):
    operator = operators()[name]
    x = torch.rand(3, 1, 6, 9, dtype=F64, generator=Generator().manual_seed(7)) + 0.1
    check_vjp(operator, x)
    check_batch_independence(operator, x)
    assert operator(x.float()).dtype == torch.float32
    assert torch.allclose(operator(x.float()).double(), operator(x), atol=2e-4)


def test_closures_and_flux_share_no_scale():
    """Closures do not change when the field is a thousand times brighter."""
    x = torch.rand(2, 1, 6, 9, dtype=F64, generator=Generator().manual_seed(7)) + 0.1
    for name in ("chord", "log amplitude"):
        operator = operators()[name]
        assert torch.allclose(operator(1e3 * x), operator(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["phases", "amplitudes"])
def test_covariance_against_draws(kind):
    """20 000 draws of thermal noise at signal to noise 30 to 90: variances, and correlations between closures."""
    pairs, times = full_scans(5, scans=2)
    n, draws = len(pairs), 20_000
    v = visibilities(n)
    sigma = 0.005 + 0.012 * torch.rand(n, dtype=F64, generator=Generator().manual_seed(3))
    noise = torch.randn(draws, n, 2, dtype=F64, generator=Generator().manual_seed(4))
    noisy = v + sigma * torch.view_as_complex(noise)
    if kind == "phases":
        closures = triangles(pairs, times)
        operator = ClosurePhases(lambda x: x, closures)
        sample = wrap(operator.phases(noisy) - operator.phases(v))
    else:
        closures = quadrangles(pairs, times)
        operator = LogClosureAmplitudes(lambda x: x, closures)
        sample = operator(noisy) - operator(v)
    cov = closures.covariance(sigma / v.abs()[0])
    white = cov.whiten(sample)
    scatter = white.mT @ white / draws
    assert float((scatter - torch.eye(len(closures), dtype=F64)).abs().max()) < 5 * math.sqrt(2 / draws)
    correlation = cov.dense() / (cov.diagonal()[:, None] * cov.diagonal()).sqrt()
    assert float((correlation - torch.eye(len(closures))).abs().max()) > 0.3  # a diagonal law would be wrong
    assert float(white.mean(0).abs().max()) < 4.5 / math.sqrt(draws)  # no bias, for logarithms too


def test_log_amplitudes_need_no_debiasing_but_amplitudes_do():
    draws, sigma = 400_000, 0.25
    noise = torch.randn(draws, 2, dtype=F64, generator=Generator().manual_seed(4))
    noisy = 1 + sigma * torch.view_as_complex(noise)
    error = noisy.abs().log().std() / math.sqrt(draws)
    assert abs(float(noisy.abs().log().mean())) < 4 * error
    raw, fixed = noisy.abs().mean() - 1, debiased(noisy.abs(), torch.tensor(sigma)).mean() - 1
    assert float(raw) == pytest.approx(sigma**2 / 2, rel=0.1)
    assert abs(float(fixed)) < 0.15 * float(raw)


def test_a_block_covariance_is_the_dense_one():
    random = Generator().manual_seed(1)
    blocks = [torch.randn(k, k + 2, dtype=F64, generator=random) for k in (3, 1, 4, 3)]
    blocks = [b @ b.mT for b in blocks]
    cov, dense = BlockDiagonal(blocks), torch.block_diag(*blocks)
    assert torch.allclose(cov.dense(), dense, atol=1e-12)
    x = torch.randn(2, 11, dtype=F64, generator=random)
    assert torch.allclose(cov.solve(x), torch.linalg.solve(dense, x.mT).mT, atol=1e-9)
    assert torch.allclose(cov.whiten_adjoint(cov.whiten(x)), cov.solve(x), atol=1e-9)
    assert torch.allclose(cov.sqrt_matmul(cov.whiten(x)), x, atol=1e-10)
    shift = torch.tensor([0.3, 2.0], dtype=F64)
    expected = torch.stack([torch.linalg.solve(dense + s * torch.eye(11), r) for s, r in zip(shift, x, strict=True)])
    assert torch.allclose(cov.solve(x, shift), expected, atol=1e-10)
    assert cov.logdet() == pytest.approx(float(torch.logdet(dense)), rel=1e-10)
    assert torch.allclose(cov.scaled(3.0).dense(), 3 * dense) and torch.allclose(cov.diagonal(), dense.diagonal())
    assert cov.whiten(x.float()).dtype == torch.float32
    with pytest.raises(ValueError, match="block 1 has a negative eigenvalue"):
        BlockDiagonal([torch.eye(2), -torch.eye(3)])


def test_wrong_lists_of_baselines():
    pairs, times = full_scans(4)
    with pytest.raises(ValueError, match="scan 0 lists a baseline twice"):
        triangles(np.vstack([pairs, pairs[:1, ::-1]]), np.append(times, 0))
    with pytest.raises(ValueError, match="visibility 2 joins a station with itself"):
        triangles(np.array([[0, 1], [1, 2], [2, 2]]), np.zeros(3))
    with pytest.raises(ValueError, match="one entry per visibility"):
        triangles(pairs, times[:-1])
    with pytest.raises(ValueError, match="no scan has enough baselines"):
        LogClosureAmplitudes(lambda x: x, quadrangles(pairs[:3], times[:3]))
    with pytest.raises(ValueError, match="expected a set of triangles"):
        ClosurePhases(lambda x: x, quadrangles(pairs, times))
    with pytest.raises(ValueError, match="positive and finite"):
        triangles(pairs, times).covariance(torch.zeros(6))
