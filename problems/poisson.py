"""Poisson's and Helmholtz' equation seen at few points: Gaussian problems whose posterior is known."""

from __future__ import annotations

from scidiff.operators.pde import Helmholtz, Poisson
from scidiff.problems.elliptic import Elliptic

__all__ = ["HelmholtzForward", "HelmholtzInverse", "PoissonForward", "PoissonInverse"]


class PoissonInverse(Elliptic):
    r"""The source a of :math:`\Delta u = a` from u at a few points; arguments and setting: `Elliptic`."""

    name, seen, bundled = "poisson-inverse", "u", "poisson-pairs"

    def solver_of(self, grid: tuple[int, int]) -> Poisson:
        """Poisson's equation."""
        return Poisson(grid)


class PoissonForward(PoissonInverse):
    r"""The solution u of :math:`\Delta u = a` from a at a few points; arguments and setting: `Elliptic`."""

    name, seen = "poisson-forward", "a"


class HelmholtzInverse(Elliptic):
    r"""The source a of :math:`\Delta u + u = a` from u at a few points; arguments and setting: `Elliptic`."""

    name, seen = "helmholtz-inverse", "u"

    def solver_of(self, grid: tuple[int, int]) -> Helmholtz:
        """Helmholtz' equation with the wavenumber 1."""
        return Helmholtz(grid, 1.0)


class HelmholtzForward(HelmholtzInverse):
    r"""The solution u of :math:`\Delta u + u = a` from a at a few points; arguments and setting: `Elliptic`."""

    name, seen = "helmholtz-forward", "a"
