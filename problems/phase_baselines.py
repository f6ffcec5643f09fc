r"""Classical phase retrieval: projections in turn between what was measured and what is known of the field.

With the wave :math:`w = F P x` at the detector two sets are known: waves with the measured moduli, onto which
:math:`P_M` projects by keeping the phases, and fields :math:`S` that vanish outside of the frame, are real where they
are known to be, and not negative where that is known. On the grid of the detector, :math:`g` is moved by

.. math:: \text{error reduction}\quad g \leftarrow P_S F^{-1} P_M F g, \qquad
          \text{hybrid input-output}\quad g \leftarrow
          \begin{cases} g' & \text{where } g' = F^{-1} P_M F g \text{ obeys } S \\
          g - \beta g' & \text{elsewhere.}\end{cases}

Error reduction never increases the misfit and stops in the first local minimum; hybrid input-output leaves it. The
usual course is many of the latter and a few of the former, from many starts with random phases, of which the one with
the smallest misfit is kept.

With coded patterns the misfit of amplitudes :math:`\tfrac12\sum(|A x| - \sqrt y)^2` is descended by its gradient, with
a step of one over the largest :math:`\sum_k |m_k|^2`; for masks of modulus one that is error reduction again. It begins
at the leading eigenvector of :math:`A^H \mathrm{diag}(y) A`, found by power iteration, and needs no restarts.

References:
    Phase retrieval algorithms: a comparison. Fienup, 1982, Applied Optics 21.
    Phase Retrieval via Wirtinger Flow: Theory and Algorithms. Candes, Li and Soltanolkotabi, 2014, arXiv:1407.1065
    (spectral start; the loss here is that of amplitudes).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scidiff.operators import CodedDiffraction, FourierMagnitude
from scidiff.rng import explicit

__all__ = ["Retrieved", "alternating_projections", "amplitude_flow", "spectral_start"]


@dataclass(frozen=True)
class Retrieved:
    """Fields (starts, 1, ``*shape``) and their misfits (starts,): relative difference of amplitudes."""

    fields: Tensor
    misfit: Tensor

    @property
    def best(self) -> Tensor:
        """The field with the smallest misfit, (1, 1, ``*shape``)."""
        i = int(self.misfit.argmin())
        return self.fields[i : i + 1]


def misfit(operator: FourierMagnitude | CodedDiffraction, x: Tensor, y: Tensor) -> Tensor:
    """Relative difference of the amplitudes of fields and data, (B,)."""
    amplitude, data = (z.clamp(min=0) ** (1 / operator.power) for z in (operator(x), y))
    return (amplitude - data).flatten(1).norm(dim=1) / data.flatten(1).norm(dim=1)


def alternating_projections(
    operator: FourierMagnitude,
    y: Tensor,
    starts: int = 20,
    hybrid: int = 400,
    reduction: int = 100,
    beta: float = 0.9,
    real: bool = True,
    positive: bool = False,
    generator: Generator | None = None,
) -> Retrieved:
    """Hybrid input-output, then error reduction, from several starts at once.

    Arguments:
        operator: Fourier modulus.
        y: Its measurement, (1, 1, ``*padded``).
        starts: Number of starts, each with random phases.
        hybrid: Steps of hybrid input-output; 0 leaves error reduction alone.
        reduction: Steps of error reduction after them.
        beta: Feedback of the former.
        real: Whether fields are real.
        positive: Whether they are known not to be negative; real fields only.
        generator: Source of the phases.
    """
    if positive and not real:
        raise ValueError("complex fields have no sign: positive=True needs real=True.")
    dims = tuple(range(-len(operator.shape), 0))
    inside = torch.zeros(operator.padded, dtype=torch.bool, device=y.device)
    inside[tuple(slice(n) for n in operator.shape)] = True

    def nearest(g: Tensor) -> Tensor:
        """The object with the measured moduli, on the grid of the detector."""
        wave = operator.project(torch.fft.fftn(g, dim=dims, norm="ortho"), y)
        back = torch.fft.ifftn(wave, dim=dims, norm="ortho")
        return back.real if real else back

    generator = explicit(generator)
    noise = torch.randn(starts, *y.shape[1:], generator=generator, dtype=y.dtype)
    if not real:
        noise = torch.complex(noise, torch.randn(noise.shape, generator=generator, dtype=y.dtype))
    g = nearest(noise.to(y.device))
    for step in range(hybrid + reduction):
        new = nearest(g)
        good = inside & (new >= 0) if positive else inside
        g = torch.where(good, new, g - beta * new if step < hybrid else torch.zeros_like(g))
    fields = torch.where(inside & (g >= 0) if positive else inside, g, 0)
    fields = fields[(..., *(slice(n) for n in operator.shape))].contiguous()
    return Retrieved(fields, misfit(operator, fields, y))


def spectral_start(
    operator: CodedDiffraction, y: Tensor, iterations: int = 50, real: bool = False, generator: Generator | None = None
) -> Tensor:
    r"""The leading eigenvector of :math:`A^H \mathrm{diag}(y_{intensity}) A`, with the energy of the data."""
    intensity = (y ** (2 / operator.power) - operator.background).clamp(min=0)
    weight = intensity.clamp(max=9 * float(intensity.mean()))  # a few bright spots must not decide alone
    e = torch.randn(1, 1, *operator.shape, generator=explicit(generator), dtype=y.dtype).to(y.device)
    x = e if real else e.to(y.dtype.to_complex())
    for _ in range(iterations):
        x = operator.wave_adjoint(weight * operator.wave(x), real)
        x = x / x.norm()
    return x * (intensity.sum() / operator.wave(x).abs().square().sum()).sqrt()


def amplitude_flow(
    operator: CodedDiffraction,
    y: Tensor,
    iterations: int = 200,
    real: bool = False,
    positive: bool = False,
    generator: Generator | None = None,
) -> Retrieved:
    """Gradient descent on the misfit of amplitudes from the spectral start; real fields get a positive sum."""
    if positive and not real:
        raise ValueError("complex fields have no sign: positive=True needs real=True.")
    x = spectral_start(operator, y, real=real, generator=generator)
    if real and float(x.sum()) < 0:
        x = -x
    step = 1 / float(operator.masks.abs().square().sum(0).max())
    for _ in range(iterations):
        wave = operator.wave(x)
        x = x - step * operator.wave_adjoint(wave - operator.project(wave, y), real)
        x = x.clamp(min=0) if positive else x
    return Retrieved(x, misfit(operator, x, y))
