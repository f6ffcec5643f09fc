"""Windows of Lorenz' systems: neighbouring states are transitions, and units are standard."""

import pytest
import torch
from torch import Generator

from scidiff.datasets import Lorenz63Windows, Lorenz96Windows
from scidiff.errors import InputError


def test_windows_are_trajectories_in_standard_units():
    data = Lorenz63Windows(chains=40, states=128, burn_in=200)
    window = data(Generator().manual_seed(0), (60,)).double()
    assert window.shape == (3, 60)
    x = window.mT * torch.tensor(data.scale) + torch.tensor(data.loc)
    steps = x[1:] - data.transition.mean(x[:-1])
    assert float(steps.square().mean()) == pytest.approx(data.dt, rel=0.35)  # 177 squares
    u = data.trajectories.flatten(0, 1)
    assert float(u.mean(0).abs().max()) < 0.15 and float((u.std(0) - 1).abs().max()) < 0.15
    kept = {tuple(row) for row in data.held_out(Generator().manual_seed(0), (4,)).mT.tolist()}
    assert not kept & {tuple(row) for row in data.trajectories[:-4].flatten(0, 1).tolist()}


def test_lorenz96_in_standard_units():
    data = Lorenz96Windows(size=12, chains=16, states=200, burn_in=200)
    window = data(Generator().manual_seed(1), (40, 12)).double()
    assert window.shape == (1, 40, 12)
    x = window[0] * data.scale + data.loc
    steps = x[1:] - data.transition.mean(x[:-1])
    assert float(steps.square().mean()) == pytest.approx(data.dt, rel=0.25)
    u = data.trajectories
    assert abs(float(u.mean())) < 0.1 and float(u.std()) == pytest.approx(1, abs=0.1)


def test_wrong_windows_and_options():
    data = Lorenz63Windows(chains=4, states=8, burn_in=0)
    with pytest.raises(InputError, match="one length"):
        data(Generator(), (4, 4))
    with pytest.raises(InputError, match="a chain has the grid"):
        data(Generator(), (9,))
    with pytest.raises(InputError, match=r"\(T, 6\)"):
        Lorenz96Windows(size=6, chains=4, states=8, burn_in=0)(Generator(), (4, 5))
    with pytest.raises(ValueError, match="at least 2 chains"):
        Lorenz63Windows(chains=1)
    with pytest.raises(ValueError, match="at least 4 places"):
        Lorenz96Windows(size=3)
