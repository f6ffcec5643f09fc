"""The pool of snapshots of turbulence: symmetric images of solutions, kept in a file that knows its settings."""

import pytest
import torch

from scidiff.datasets.sources import training_data
from scidiff.datasets.vorticity import VorticityFields
from scidiff.errors import InputError, NumericalError

SMALL = {"shape": (16, 24), "trajectories": 4, "start": 1.0, "stop": 3.0, "every": 0.5}


def test_snapshots_are_shifted_and_mirrored_solutions(tmp_path) -> None:
    source = VorticityFields(**SMALL)
    assert source.snapshots.shape == (3 * 5, 16, 24) and source._apart.shape == (5, 16, 24)
    assert float(source.snapshots.square().mean()) == pytest.approx(1, rel=1e-5)
    g = torch.Generator().manual_seed(0)
    pool = [source(g, (16, 24))[0] for _ in range(60)]
    spectra = torch.fft.rfft2(source.snapshots).abs()
    signs = set()
    for field in pool:
        own = torch.fft.rfft2(field).abs()
        turned = torch.fft.rfft2(-field.flip(1)).abs()
        distance = torch.stack([(spectra - s).flatten(1).norm(dim=1) for s in (own, turned)])
        assert distance.min() < 1e-4 * own.norm(), "each draw is a symmetric image of a snapshot"
        signs.add(int(distance.min(1).values.argmin()))
    assert signs == {0, 1}
    held_out = source.held_out(g, (16, 24))[0]
    nearest = torch.stack([(spectra - torch.fft.rfft2(f).abs()).flatten(1).norm(dim=1) for f in (held_out,)])
    assert nearest.min() > 0.05 * torch.fft.rfft2(held_out).norm()
    assert source(g, (7, 9)).shape == (1, 7, 9)
    with pytest.raises(InputError, match="crops asks for"):
        source(g, (17, 9))


def test_the_pool_is_kept_in_a_file_and_belongs_to_its_settings(tmp_path) -> None:
    options = {**SMALL, "shape": [16, 24], "cache": "pool.h5"}
    first = training_data("vorticity", tmp_path, **options)
    assert (tmp_path / "pool.h5").exists() and not (tmp_path / "pool.h5.part").exists()
    again = training_data("vorticity", tmp_path, **options)
    g = (torch.Generator().manual_seed(2) for _ in range(2))
    assert torch.equal(first.source(next(g), (8, 8)), again.source(next(g), (8, 8)))
    with pytest.raises(InputError, match="other settings"):
        training_data("vorticity", tmp_path, **options, seed=1)


def test_wrong_values_say_what_is_expected() -> None:
    with pytest.raises(ValueError, match="at least 2 trajectories"):
        VorticityFields(trajectories=1)
    with pytest.raises(NumericalError, match=r"crosses .* Choose data\.dt below"):
        VorticityFields(**{**SMALL, "dt": 0.5})
