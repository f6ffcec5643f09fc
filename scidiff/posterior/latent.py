r"""What latent samplers share: counted passes through decoder and encoder, and the measurement seen from the field.

Nothing here needs a `LatentPrior`: any prior with ``decode`` and ``encode`` will do, and then "decoder" is its
``decode``. Two spaces are at work:

========  =============================================================================================
state u   of the prior of codes, dimensionless; `Run.measurement` is the measurement seen from here
field x   :math:`x = G(u)` in physical units; `pixels` is the measurement seen from here
========  =============================================================================================

An operator acts on fields. One that was made for codes is found before the first step, and the error says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.inference import Ensemble, Posterior
from scidiff.nn.recompute import recomputing, whole_recomputed
from scidiff.posterior.base import MemberSampler, Run
from scidiff.posterior.measurement import Measurement
from scidiff.priors.gaussian import from_real, to_real
from scidiff.protocols import Callback, Prior
from scidiff.rng import member_indices

__all__ = ["Counted", "LatentSampler", "pixels", "row"]


def row(scalar: Tensor, like: Tensor) -> Tensor:
    """One number per row (rows,), shaped to multiply ``like``."""
    return scalar.reshape(-1, *[1] * (like.ndim - 1))


class Counted:
    """A prior whose passes through ``decode``, back through it, and through ``encode`` are counted in rows."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.decoded, self.pulled, self.encoded = prior, 0, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def __repr__(self) -> str:
        return repr(self.prior)

    def _back(self, gradient: Tensor) -> None:
        self.pulled += len(gradient)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        """That of the prior."""
        return whole_recomputed(self.prior.denoise, u, sigma)

    def decode(self, u: Tensor) -> Tensor:
        """That of the prior, counted."""
        self.decoded += len(u)
        x = whole_recomputed(self.prior.decode, u)
        if x.requires_grad:
            x.register_hook(self._back)
        return x

    def encode(self, x: Tensor) -> Tensor:
        """That of the prior, counted."""
        self.encoded += len(x)
        return whole_recomputed(self.prior.encode, x)


class LatentSampler(MemberSampler):
    """A sampler that knows what a decoder costs: large blocks of networks are computed again on the way back.

    Diagnostics beside those of the method, per member: ``decoder``, ``decoder_vjp`` and ``encoder`` calls.
    """

    def __call__(
        self,
        posterior: Posterior,
        members: int | Sequence[int] = 16,
        generator: Generator | None = None,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Ensemble:
        """Draws an ensemble, see `MemberSampler`; ValueError where the operator does not take decoded fields."""
        prior = Counted(posterior.prior)
        counted = Posterior(prior, posterior.likelihood, posterior.shape)  # type: ignore[arg-type]
        with recomputing():
            found = super().__call__(counted, members, generator, batch_size, callback)
        rows = len(member_indices(members)) * posterior.batch
        calls = {"decoder": prior.decoded, "decoder_vjp": prior.pulled, "encoder": prior.encoded}
        found.diagnostics.update({name: count / rows for name, count in calls.items()})
        if found.diagnostics.get("unreached", 0) > 0:
            share, chi2 = found.diagnostics["unreached"], found.diagnostics["chi2"]
            warnings.warn(
                f"{type(self).__name__}: {share:.0%} of the draws do not explain the data to the noise (mean chi2 "
                f"{chi2:.3g}, about 1 expected). Allow more iterations; or the decoder cannot make such fields, or the "
                "noise is larger than stated.",
                stacklevel=2,
            )
        return found

    def check(self, posterior: Posterior) -> None:
        """Raises TypeError if the posterior lacks what the method requires, ValueError for the wrong space."""
        super().check(posterior)
        with torch.no_grad():
            code = torch.zeros(1, *(posterior.shape or ()), dtype=posterior.dtype, device=posterior.device)
            x = posterior.prior.decode(code)
        for part in posterior.likelihoods:
            operator: Any = part.operator
            try:
                with torch.no_grad():
                    z = operator(x)
            except (ValueError, RuntimeError, IndexError, TypeError) as error:
                if isinstance(error, FloatingPointError):
                    raise
                raise ValueError(_wrong_space(part.operator, code, x, error)) from error
            if part.y.shape[0] == posterior.batch:
                part.matching(z)


def _wrong_space(operator: Any, code: Tensor, x: Tensor, error: Exception) -> str:
    shapes = f"fields of shape {tuple(x.shape[1:])}, decoded from states of shape {tuple(code.shape[1:])}"
    try:
        with torch.no_grad():
            operator(code)
        hint = "; it takes states: describe the instrument on fields in physical units, not on codes"
    except Exception:  # noqa: BLE001 - whatever it is: the operator takes neither
        hint = "; make operator and autoencoder for one grid"
    return f"{type(operator).__name__} does not take {shapes}{hint}. It says: {error}"


class _Fields:
    """Fields as states, ``x = loc + scale * w``; complex ones as real numbers."""

    affine = True

    def __init__(self, loc: Tensor, scale: Tensor, shape: tuple[int, ...], complex: bool) -> None:
        self.loc, self.complex, self.shape = loc, complex, shape
        self.scale = row(torch.where(scale > 0, scale, 1.0), loc)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        raise NotImplementedError("fields have no law of their own here")

    def decode(self, u: Tensor) -> Tensor:
        v = self.loc + self.scale * u
        return from_real(v) if self.complex else v

    def encode(self, x: Tensor) -> Tensor:
        return (to_real(x) - self.loc) / self.scale


def pixels(run: Run, x: Tensor, about: Tensor | None = None) -> Measurement:
    r"""The measurement of a run seen from its fields, which take the place of states.

    The states are :math:`w = (x - m)/s` with one s per row: the root mean square of ``x - m`` over its numbers; complex
    fields count as two real ones. ``pixels(...).prior`` has ``encode`` and ``decode``.

    Arguments:
        run: Rows at hand; counters and failures are its own.
        x: Fields (rows, \*X) that set s.
        about: Fields m, (rows, \*X); None takes the mean of each row of ``x`` over its numbers.
    """
    v, p = to_real(x), run.posterior
    loc = row(v.flatten(1).mean(1), v) if about is None else to_real(about)
    fields = _Fields(loc, (v - loc).square().flatten(1).mean(1).sqrt(), tuple(v.shape[1:]), x.is_complex())
    seen = Measurement(Posterior(fields, p.likelihood, fields.shape), run.cost, run.failed)
    seen.sums, seen.failed = run.measurement.sums, run.measurement.failed
    return seen
