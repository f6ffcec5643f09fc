r"""Darcy's flow seen at few points: a permeability of two values, or a log-normal one, and the pressure.

The permeability comes from a Gaussian field g of unit variance:

==================  =================================================  =========================================
``coefficient``     truth                                              prior of state ``"a"``
==================  =================================================  =========================================
``"binary"``        ``high`` where g is positive, else ``low``         :math:`l + (h - l) / (1 + e^{-s g})`
``"lognormal"``     :math:`\sqrt{l h}\,(h/l)^{g/2}`                    the same
==================  =================================================  =========================================

with s the ``sharpness``, so that a stays positive whatever a sampler does.
The logistic function stands for the step because a step has no
gradient. The state is that of g, whose denoiser is exact; only the forward model is nonlinear.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scidiff.errors import InputError
from scidiff.operators.mask import Mask
from scidiff.operators.pde import Darcy
from scidiff.priors import GaussianPrior, Kriging, TransformedPrior
from scidiff.problems.elliptic import Elliptic
from scidiff.problems.flow_baselines import most_probable
from scidiff.transforms import Log, Logit

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.protocols import Operator, Prior

__all__ = ["DarcyForward", "DarcyInverse"]


class DarcyInverse(Elliptic):
    r"""The permeability a of :math:`-\nabla \cdot (a \nabla u) = 1` from u at a few points.

    Arguments:
        size, points, noise, state, prior, alpha, tau, constant, finer, seed: See `Elliptic`.
        coefficient: ``"binary"`` or ``"lognormal"``, see the module.
        low, high: Values of the permeability; of a log-normal one, those of g = -1 and g = 1.
        sharpness: s of the table.
    """

    name, seen, bundled, varying = "darcy-inverse", "u", "darcy-pairs", False
    names = {"a": "permeability", "u": "pressure"}

    def __init__(
        self,
        size: int = 64,
        points: int | None = None,
        noise: float = 1e-3,
        state: str = "a",
        prior: str | os.PathLike[str] | Prior | None = None,
        alpha: float = 2.0,
        tau: float = 3.0,
        constant: bool | None = None,
        finer: int = 3,
        seed: int = 0,
        coefficient: str = "binary",
        low: float = 3.0,
        high: float = 12.0,
        sharpness: float = 8.0,
    ) -> None:
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if coefficient not in ("binary", "lognormal"):
            raise ValueError(f"coefficient must be 'binary' or 'lognormal', got {coefficient!r}.")
        if not (0 < low < high < math.inf and sharpness > 0):
            raise ValueError(f"expected 0 < low < high and a positive sharpness, got {low}, {high} and {sharpness}.")
        self.kind, self.low, self.high, self.sharpness = coefficient, low, high, sharpness
        super().__init__(size, points, noise, state, prior, alpha, tau, constant, finer, seed)
        self.arguments = arguments

    def solver_of(self, grid: tuple[int, int]) -> Darcy:
        """Darcy's equation with the source 1."""
        return Darcy(grid)

    def coefficient(self, g: Tensor) -> Tensor:
        if self.kind == "binary":
            return torch.where(g >= 0, self.high, self.low).to(g)
        return math.sqrt(self.low * self.high) * (self.high / self.low) ** (g / 2)

    def law(self) -> TransformedPrior:
        g = self.gaussian(self.grid)
        if self.kind == "binary":
            return TransformedPrior(GaussianPrior(g.mean, g.cov.scaled(self.sharpness**2)), Logit(self.low, self.high))
        spread = math.log(self.high / self.low) / 2
        return TransformedPrior(GaussianPrior(g.mean, g.cov.scaled(spread**2)), Log(math.sqrt(self.low * self.high)))

    def measuring(self, seen: Tensor) -> Operator:
        return Mask(seen) @ self.solver if self.seen == "u" else Mask(seen)

    def measurement(self, observation: xr.Dataset) -> Tensor:
        found = super().measurement(observation)
        return found if self.state == "pair" else found[:, None]  # a mask keeps the channel

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        found = super().complete(observation, what)
        values = found[self.measured].values
        if self.seen == "a" and bool((values <= 0).any()):
            raise InputError(
                f"{what}: a permeability must be positive, but '{self.measured}' has {int((values <= 0).sum())} values "
                f"that are not, the least {np.nanmin(values):.4g}; write NaN where nothing was observed."
            )
        return found

    def residual(self, pair: Tensor) -> Tensor:
        """As for all; a permeability below half of ``low``, as a network may guess from noise, counts as that."""
        return self.solver.residual(pair[:, :1].clamp(min=self.low / 2), pair[:, 1:])

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        """What has no ensemble: kriging or the most probable field, and the homogeneous medium that fits best.

        ``kriging`` (of `DarcyForward`, which shows the permeability): mean of the Gaussian field g given the side of
        its step, or the value, at the points, by systems of n equations; then the equation once. ``most_probable``
        (of `DarcyInverse`): the most probable field under the smooth prior, by 60 steps of L-BFGS through the solver,
        as in variational data assimilation. ``homogeneous``: the pressure is inversely proportional to a constant
        permeability, so the fit is one division.
        """
        one = torch.ones(1, 1, *self.grid, dtype=torch.float64)
        y = super().measurement(observation).double()
        if self.seen == "a":
            value = float(y.log().mean().exp()) if bool((y > 0).all()) else math.sqrt(self.low * self.high)
            found = {"kriging": self.kriging(y, observation)}
        else:
            u = self.solver(one).flatten(1)[:, self.places(observation)]
            value = float((u * u).sum() / (u * y).sum().clamp(min=1e-12))
            found = {"most_probable": self.most_probable(observation)}
        return {name: self._member(a, observation) for name, a in (found | {"homogeneous": value * one}).items()}

    def kriging(self, y: Tensor, observation: xr.Dataset) -> Tensor:
        """The expected permeability given values (1, n) of it, (1, 1, H, W), taking the sides of a step as +-1."""
        law = self.gaussian(self.grid)
        if self.kind == "binary":
            known = Kriging(law, self.places(observation), 0.5, torch.where(y > (self.low + self.high) / 2, 1.0, -1.0))
            return self.low + (self.high - self.low) * torch.special.ndtr(known.mean / known.variance.sqrt())[None]
        g = 2 * (y.clamp(min=self.low / 10) / math.sqrt(self.low * self.high)).log() / math.log(self.high / self.low)
        return self.coefficient(Kriging(law, self.places(observation), 1e-2, g).mean[None])

    def most_probable(self, observation: xr.Dataset, iterations: int = 60) -> Tensor:
        """The most probable permeability under `law`, (1, 1, H, W): the last step of a descent from the middle."""
        law, part = self.law(), self.likelihood(observation)
        inner: Any = law.prior
        with torch.no_grad():
            z = most_probable(
                inner.cov, lambda z: part.operator(law.transform.decode(z)), part.noise, part.y.double(), iterations
            )
            return law.transform.decode(z.reshape(1, 1, *self.grid))


class DarcyForward(DarcyInverse):
    """The pressure u of Darcy's equation from the permeability at a few points; arguments: `DarcyInverse`."""

    name, seen = "darcy-forward", "a"
