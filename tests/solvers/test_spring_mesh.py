"""Forces against the gradient of the energy, symplectic order two, friction exact, Newton's third law."""

from __future__ import annotations

import math

import pytest
import torch

from scidiff.solvers.spring_mesh import SpringMesh


def start(mesh: SpringMesh, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    q = mesh.rest + 0.3 * torch.rand(rows, 2, *mesh.grid, generator=g, dtype=torch.float64).masked_fill(mesh.fixed, 0)
    return q, torch.randn(q.shape, generator=g, dtype=torch.float64).masked_fill(mesh.fixed, 0) * 0.2


@pytest.mark.parametrize("fixed", ["top", "corners", torch.zeros(3, 5, dtype=torch.bool)])
def test_force_is_the_slope_of_the_energy(fixed) -> None:
    mesh = SpringMesh((3, 5), stiffness=1.7, fixed=fixed)
    q, p = start(mesh)
    x = q.clone().requires_grad_()
    (slope,) = torch.autograd.grad(mesh.energy(x, p).sum(), x)
    torch.testing.assert_close(mesh.force(q), -slope.masked_fill(mesh.fixed, 0))
    torch.testing.assert_close(mesh.force(mesh.rest), torch.zeros_like(mesh.rest))
    if not bool(mesh.fixed.any()):
        torch.testing.assert_close(mesh.force(q).sum((-2, -1)), torch.zeros(2, 2).double(), rtol=0, atol=1e-12)


def test_every_neighbour_has_its_spring() -> None:
    """2 masses along y, 3 along x: 3 + 4 + 4 springs; a shift of one corner strains the three it has."""
    mesh = SpringMesh((2, 3), fixed=torch.zeros(2, 3, dtype=torch.bool))
    q = mesh.rest.clone()
    q[:, 0, 0] -= torch.tensor([0.5, 0.0])
    expected = 0.5 * (0.5**2 + (math.hypot(0.5, 1) - 1) ** 2 + (math.hypot(1.5, 1) - math.sqrt(2)) ** 2)
    assert float(mesh.energy(q, torch.zeros_like(q))) == pytest.approx(expected)


def test_order_two_and_no_drift_of_the_energy() -> None:
    mesh = SpringMesh((3, 4), decay=1.0)
    q, p = start(mesh)
    fine = mesh.advance(q, p, 1 / 512, 512)[0]
    errors = [float((mesh.advance(q, p, 1 / n, n)[0] - fine).norm()) for n in (8, 16, 32)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.1)
    energies = []
    for _ in range(40):
        q, p = mesh.advance(q, p, 0.05, 20)
        energies.append(mesh.energy(q, p))
    energies = torch.stack(energies) / energies[0]
    assert float((energies - 1).abs().max()) < 5e-3
    assert float((energies[20:].mean(0) - energies[:20].mean(0)).abs().max()) < 1e-3


def test_friction_alone_shrinks_momenta_by_its_factor() -> None:
    """A sheet that moves as a whole feels no springs."""
    mesh = SpringMesh((2, 3), decay=0.1, fixed=torch.zeros(2, 3, dtype=torch.bool))
    p = torch.ones(2, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(mesh.advance(mesh.rest, p, 0.1, 10)[1], 0.1 * p)


def test_with_friction_the_energy_falls_and_pinned_masses_stay() -> None:
    mesh = SpringMesh()
    q, p = start(mesh)
    later = mesh.advance(q, p, 0.00781, 200)
    assert bool((mesh.energy(*later) < 0.2 * mesh.energy(q, p)).all())
    assert torch.equal(later[0][..., -1, :], mesh.rest[..., -1, :].expand(2, -1, -1))


def test_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="decay in"):
        SpringMesh(decay=1.5)
    with pytest.raises(ValueError, match="'top', 'corners'"):
        SpringMesh(fixed="left")
