"""The denoising loss of blocks: its value for the exact denoiser, masks, scales; training and exact resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scidiff.cli.common import exit_code
from scidiff.errors import InputError
from scidiff.forecast import ConditionalDiffusion
from scidiff.forecast.diffusion_loss import BlockDenoisingLoss, OnLevels, residual_scale
from scidiff.forecast.files import load_forecaster
from scidiff.forecast.windows import WindowSource
from scidiff.schedules import vp_linear
from scidiff.training.losses import edm, simple
from tests.forecast.exact_block import LAW, ExactDenoiser, block_covariance
from tests.forecast.test_training import folder, run  # noqa: F401 - a fixture

H = 3
SCALE = torch.tensor([[0.5], [0.8], [1.2]])


@pytest.mark.parametrize(("sigma", "weight"), [(0.3, edm), (2.0, simple)])
def test_the_exact_denoiser_has_the_least_loss(sigma: float, weight) -> None:
    """E |D - z|^2 = tr(K s^2 (K + s^2)^-1): each eigenvalue k leaves k s^2 / (k + s^2)."""
    rows = 2000
    u = LAW.trajectories(torch.Generator().manual_seed(0), rows, H)[:, :, None]
    model = ConditionalDiffusion(ExactDenoiser(H, "residual", SCALE), H, scale=SCALE)
    loss = BlockDenoisingLoss(model, 1, weight=weight)
    g = torch.Generator().manual_seed(1)
    time = torch.stack([loss.draw(g) for _ in range(rows)])
    time[:, 0] = sigma
    found = loss(model.denoiser, u, time)
    s = SCALE.double().expand(H, LAW.grid[0] * LAW.grid[1]).flatten()
    k = torch.linalg.eigvalsh(block_covariance(H) / torch.outer(s, s))
    expected = weight(torch.tensor(sigma)) * (k * sigma**2 / (k + sigma**2)).mean()
    assert found.shape == (rows,)
    assert abs(found.mean() - expected) < 4 * found.std() / rows**0.5
    assert found.std() / rows**0.5 < 0.03 * expected
    torch.testing.assert_close(loss(model.denoiser, u[3:4], time[3:4]), found[3:4])


def test_levels_and_masks_are_drawn_as_asked() -> None:
    model = ConditionalDiffusion(torch.nn.Identity(), 2, 1, target="state", future=1, masked=True)
    levels = vp_linear(5).tolist()[:-1]
    loss = BlockDenoisingLoss(model, 1, OnLevels(levels), simple)
    g = torch.Generator().manual_seed(0)
    drawn = torch.stack([loss.draw(g) for _ in range(2000)])
    assert {round(v, 3) for v in drawn[:, 0].tolist()} == {round(v, 3) for v in levels}
    given = drawn[:, 2:]
    assert (given.mean(0) - 0.5).abs().max() < 0.045
    assert abs(given.prod(1).mean() - 0.25) < 0.04  # withheld independently of each other
    with pytest.raises(ValueError, match="probability"):
        BlockDenoisingLoss(model, 1, withhold=1.0)


def test_withheld_states_do_not_reach_the_network(generator: torch.Generator) -> None:
    model = ConditionalDiffusion(torch.nn.Identity(), 1, 1, target="state", future=1, masked=True)
    loss, seen = BlockDenoisingLoss(model, 1), []

    def network(z, sigma, condition):  # noqa: ANN001, ANN202
        seen.append(condition)
        return 0 * z

    u = torch.randn(2, 3, 1, 2, 3, generator=generator)
    time = torch.tensor([[1.0, 5, 0, 1], [1.0, 6, 1, 0]], dtype=torch.float64)
    found = loss(network, u, time)  # type: ignore[arg-type]
    assert seen[0][0, 0].abs().max() == 0 and torch.equal(seen[0][0, 1], u[0, 2, 0])
    assert seen[0][1, 1].abs().max() == 0 and torch.equal(seen[0][1, 0], u[1, 0, 0])
    torch.testing.assert_close(found, 2 * u[:, 1, 0].square().flatten(1).mean(1))  # EDM's weight at level 1 is 2


def test_scales_of_residuals() -> None:
    ramp = torch.arange(6.0).reshape(6, 1, 1) * torch.tensor([1.0, 0.0]).reshape(1, 2, 1) + torch.zeros(6, 2, 3)
    short = torch.tensor([0.0, 3.0]).reshape(2, 1, 1) + torch.zeros(2, 2, 3)
    found = residual_scale(WindowSource([ramp, short], 2), 2, 2)
    # Lead 1: five steps of 1 and one of 3 in channel 0, one of 3 in channel 1; lead 2: four steps of 2, nothing.
    torch.testing.assert_close(found, torch.tensor([[(14 / 6) ** 0.5, (9 / 6) ** 0.5], [2.0, 1.0]]).double())


@pytest.mark.parametrize("kind", ["edm", "ddpm", "mcvd"])
def test_kinds_are_trained_saved_and_resumed(kind: str, folder: Path) -> None:  # noqa: F811
    more = {"edm": 'sampler = {kind = "Heun", steps = 5}', "ddpm": "diffusion_steps = 4", "mcvd": "future = 1"}[kind]
    path = run(folder, kind, more)
    model = load_forecaster(path)
    assert isinstance(model, ConditionalDiffusion) and model.horizon == 3
    assert model.network_calls == {"edm": 5, "ddpm": 4, "mcvd": 100}[kind]
    assert (model.target, model.masked, model.future) == (
        ("state", True, 1) if kind == "mcvd" else ("residual", False, 0)
    )
    if kind == "edm":
        # White noise of unit variance changes by sqrt(2) whatever the lead.
        torch.testing.assert_close(model.scale, torch.full((3, 1), 2**0.5).double(), atol=0.05, rtol=0)
        out = folder / "again"
        run(folder, kind, more, steps=3, out=out)
        assert run(folder, kind, more, resume=True, out=out).read_bytes() == path.read_bytes()
        with pytest.raises(InputError, match="forecaster"):
            run(folder, kind, 'sampler = {kind = "Heun", steps = 7}', resume=True, out=out)
    if kind != "mcvd":
        state, forcing = torch.zeros(2, 1, 1, 5, 8), torch.zeros(2, 4, 2, 5, 8)
        drawn = model.sample(state, forcing, generator=torch.Generator().manual_seed(0))
        assert drawn.shape == (2, 3, 1, 5, 8) and drawn.isfinite().all() and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("more", "match"),
    [("spread = 1", "has no 'spread'"), ('sampler = {kind = "heun"}', "sampler.kind"), ('target = "x"', "target")],
)
def test_faults(more: str, match: str, folder: Path) -> None:  # noqa: F811
    with pytest.raises(Exception, match=match) as caught:
        run(folder, "edm", more)
    assert exit_code(caught.value) == 2
