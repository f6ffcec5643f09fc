r"""Random axial heads, receiver coils and multi-coil k-space: raw MRI without any external data.

`head_phantom` draws one slice of an invented head. Every random number is drawn before the grid is looked at, so equal
generators give the same anatomy on every grid: k-space can be rendered on a finer grid than the one it is inverted on
(`simulate_kspace`), which avoids that a method is tested with the very discretisation it assumes.

Anatomy, from outside to inside, with :math:`r` the radius of a warped superellipse (1 at the skin):

- scalp (bright fat), outer and inner table of the skull (dark) with marrow between them, cerebrospinal fluid;
- cortex: grey matter within a thickness :math:`t` of the pial surface, the zero level of
  :math:`p = \min(d,\; |f| / |\nabla f| - w)`, where :math:`d` is the depth below the skull and :math:`f` a smooth
  random field whose level set :math:`f = 0`, cut off at a depth, gives the folds (sulci); the midline is one more fold;
- white matter, ventricles, caudate, putamen and thalamus, all warped by the same smooth displacement.

Coordinates are isotropic: the longer side of the grid spans [-1, 1].
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from scidiff.rng import explicit

__all__ = ["coil_maps", "head_phantom", "simulate_kspace", "smooth_phase"]


def _axes(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixel centres (H, 1) and (1, W); the longer side spans [-1, 1]."""
    longer = max(shape)
    y, x = ((2 * torch.arange(n) + 1 - n) / longer for n in shape)
    return y[:, None], x[None, :]


def _smooth_field(y: Tensor, x: Tensor, knots: Tensor) -> Tensor:
    """A Gaussian field of unit variance: bumps on a lattice over [-1.15, 1.15]^2, weighted by ``knots`` (n, n)."""
    n = len(knots)
    lattice = torch.linspace(-1.15, 1.15, n)
    spacing = 2.3 / (n - 1)

    def basis(t: Tensor) -> Tensor:
        weights = torch.exp(-0.5 * ((t.reshape(-1, 1) - lattice) / (0.75 * spacing)).square())
        return weights / weights.square().sum(1, keepdim=True).sqrt()

    return basis(y) @ knots @ basis(x).T


def _gradient_norm(f: Tensor, pixel: float) -> Tensor:
    dy, dx = torch.gradient(f, spacing=pixel)
    return torch.hypot(dy, dx)


class _Dice:
    """Named draws from one generator, none of which depends on the grid."""

    def __init__(self, generator: Generator | None) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def knots(self, n: int) -> Tensor:
        return torch.randn(n, n, generator=self.generator)


def _check_shape(shape: tuple[int, int], least: int = 16) -> None:
    if len(shape) != 2 or min(shape) < least:
        raise ValueError(f"shape must be (height, width) with both at least {least}, got {tuple(shape)}.")


def head_phantom(
    shape: tuple[int, int] = (160, 128),
    generator: Generator | None = None,
    oversample: int = 2,
    phase: bool = False,
) -> Tensor:
    r"""One random axial slice of a head, intensities with 99th percentile 1.

    Arguments:
        shape: Height and width of the result; any size from 16 up, the head fills the field of view.
        generator: Source of the anatomy, contrast and texture; equal generators give equal heads on every grid.
        oversample: The slice is drawn on a grid finer by this factor and averaged, so edges are anti-aliased.
        phase: Multiplies by :math:`e^{i \phi}` with a smooth random :math:`\phi` (see `smooth_phase`).

    Returns:
        (H, W), float32, or complex64 where ``phase`` is set; not negative in magnitude, zero-ish in air.
    """
    _check_shape(shape)
    if oversample < 1:
        raise ValueError(f"oversample must be a whole number of at least 1, got {oversample}.")
    fine = (shape[0] * oversample, shape[1] * oversample)
    dice = _Dice(generator)
    image = _draw(fine, dice)
    if oversample > 1:
        image = torch.nn.functional.avg_pool2d(image[None, None], oversample)[0, 0]
    image = image / torch.quantile(image.flatten(), 0.99)
    if not phase:
        return image
    return torch.polar(image, _phase(_axes(shape), dice))


def smooth_phase(shape: tuple[int, int], generator: Generator | None = None) -> Tensor:
    """A smooth random phase in radians (H, W): uniform offset, ramps of up to a turn, and a few smooth bumps."""
    return _phase(_axes(shape), _Dice(generator))


def _phase(axes: tuple[Tensor, Tensor], dice: _Dice) -> Tensor:
    y, x = axes
    offset, ramp_y, ramp_x = dice.uniform(-math.pi, math.pi), dice.uniform(-1.5, 1.5), dice.uniform(-1.5, 1.5)
    return offset + ramp_y * y + ramp_x * x + dice.uniform(0.2, 0.8) * _smooth_field(y, x, dice.knots(5))


def _draw(shape: tuple[int, int], dice: _Dice) -> Tensor:
    y0, x0 = _axes(shape)
    pixel = 2 / max(shape)
    turned = shape[1] > shape[0]  # the long axis of the head follows the long side of the grid

    def cover(level: Tensor) -> Tensor:
        """Share of a pixel where ``level`` (a signed distance) is positive."""
        return (level / pixel + 0.5).clamp(0, 1)

    # Position, size, rotation, warp
    aspect = dice.uniform(0.76, 0.87)
    tall, wide = (min(shape) / max(shape), 1.0) if turned else (1.0, min(shape) / max(shape))
    long_side, short_side = (wide, tall) if turned else (tall, wide)
    a = min(long_side, short_side / aspect) * dice.uniform(0.8, 0.93)
    b = a * aspect
    angle = dice.uniform(-0.22, 0.22) + (math.pi / 2 if turned else 0.0)
    shift_y, shift_x = dice.uniform(-0.04, 0.04), dice.uniform(-0.04, 0.04)
    warp = dice.uniform(0.015, 0.035)
    y = y0 - shift_y + warp * _smooth_field(y0, x0, dice.knots(6))
    x = x0 - shift_x + warp * _smooth_field(y0, x0, dice.knots(6))
    v = (math.cos(angle) * y - math.sin(angle) * x) / a  # front (-1) to back (+1)
    h = (math.sin(angle) * y + math.cos(angle) * x) / b  # right to left
    h = h * (1 - dice.uniform(0.02, 0.10) * v)  # the forehead is narrower than the back
    power = dice.uniform(2.0, 2.35)
    r = (v.abs().pow(power) + h.abs().pow(power)).pow(1 / power)
    size = 0.5 * (a + b)
    outside = (1 - r) * size  # signed distance below the skin, roughly

    # Contrast: mostly T1-weighted, white matter bright
    white = dice.uniform(0.72, 0.95)
    grey = white * dice.uniform(0.62, 0.8)
    fluid = white * dice.uniform(0.12, 0.33)
    nuclei = grey + (white - grey) * dice.uniform(0.15, 0.6)
    fat, bone = dice.uniform(0.6, 1.2), dice.uniform(0.02, 0.10)
    marrow = dice.uniform(0.12, 0.55)
    grain = dice.uniform(0.02, 0.06)
    textures = [1 + grain * _smooth_field(y0, x0, dice.knots(n)) for n in (28, 44, 12)]

    image = torch.zeros(shape)

    def paint(mask: Tensor, value: Tensor | float) -> None:
        nonlocal image
        image = image + mask * (value - image)

    # Scalp, skull, fluid
    scalp = dice.uniform(0.03, 0.065) + 0.02 * _smooth_field(y0, x0, dice.knots(7)).clamp(-1.2, 2)
    skull = dice.uniform(0.05, 0.085) + 0.01 * _smooth_field(y0, x0, dice.knots(8)).clamp(-2, 2)
    skin = dice.uniform(0.35, 0.7) * fat
    paint(cover(outside), skin)
    paint(cover(outside - 0.010), fat * (1 + 0.2 * _smooth_field(y0, x0, dice.knots(16)).clamp(-2, 2)))
    paint(cover(outside - scalp), bone)
    plate = 0.3 * skull
    paint(cover(outside - scalp - plate) * cover(scalp + skull - plate - outside), marrow * textures[2] ** 6)
    inner = outside - scalp - skull
    paint(cover(inner), fluid)

    # Cortex
    gap = 0.012 + 0.012 * _smooth_field(y0, x0, dice.knots(10)).clamp(-1, 2)
    depth = inner - gap
    fold = _smooth_field(y0, x0, dice.knots(20)) + 0.5 * _smooth_field(y0, x0, dice.knots(32))
    reach = dice.uniform(0.12, 0.22) + 0.07 * _smooth_field(y0, x0, dice.knots(7))
    width = dice.uniform(0.0, 0.014) + 0.004 * _smooth_field(y0, x0, dice.knots(12))
    sulcus = torch.hypot(fold / (_gradient_norm(fold, pixel) + 1.0), (depth - reach).clamp(min=0)) - width
    cleft = dice.uniform(0.35, 0.6)  # how far the midline fissure goes towards the centre
    midline = torch.hypot(h * b, (cleft - v.abs()).clamp(min=0) * a) - dice.uniform(0.004, 0.012)
    pial = torch.minimum(torch.minimum(depth, sulcus), midline)
    thickness = dice.uniform(0.026, 0.040) * (1 + 0.15 * _smooth_field(y0, x0, dice.knots(12)))
    paint(cover(pial), grey * textures[0])
    paint(cover(pial - thickness), white * textures[1])

    # Deep nuclei and ventricles; high slices have neither
    level = dice.uniform(0.0, 1.0)
    swell = dice.uniform(0.7, 1.45) if level < 0.8 else dice.uniform(0.0, 0.6)
    present = level < 0.6

    def blob(cv: float, ch: float, lv: float, lh: float, tilt: float) -> Tensor:
        """A pair of ellipses mirrored at the midline, in head coordinates: signed distance, roughly."""
        s = h.abs() - ch
        t = v - cv
        p, q = math.cos(tilt) * t + math.sin(tilt) * s, -math.sin(tilt) * t + math.cos(tilt) * s
        return (1 - torch.hypot(p / lv, q / lh)) * min(lv, lh) * size

    front, back = dice.uniform(-0.28, -0.18), dice.uniform(0.18, 0.32)
    jitter = [dice.uniform(0.85, 1.15) for _ in range(8)]
    if present:
        paint(cover(blob(front + 0.02, 0.17, 0.14 * jitter[0], 0.065 * jitter[1], 0.35)), nuclei * textures[0])
        paint(cover(blob(-0.06, 0.36 * jitter[2], 0.20 * jitter[3], 0.075 * jitter[4], 0.25)), nuclei * textures[0])
        paint(cover(blob(0.10, 0.15, 0.14 * jitter[5], 0.11 * jitter[6], -0.3)), nuclei * textures[1])
    horns = torch.maximum(
        blob(front, 0.09, 0.17 * swell, 0.055 * swell * jitter[7], 0.35),
        blob(back, 0.20, 0.20 * swell, 0.06 * swell * jitter[0], -0.45),
    )
    if not present:  # the bodies of the lateral ventricles, front and back joined
        horns = torch.maximum(horns, blob(0.02, 0.12, 0.34 * swell + 1e-3, 0.055 * swell * jitter[1] + 1e-3, 0.05))
    else:
        third = blob(0.07, 0.0, 0.12, 0.02 * swell + 0.004, 0.0)
        horns = torch.maximum(horns, third)
    if swell > 0.15:
        paint(cover(horns), fluid * dice.uniform(0.85, 1.0))

    # Uneven receive field
    bias = dice.uniform(0.03, 0.16)
    return (image * torch.exp(bias * _smooth_field(y0, x0, dice.knots(4)))).clamp(min=0)


def coil_maps(shape: tuple[int, int], coils: int = 8, generator: Generator | None = None) -> Tensor:
    r"""Smooth complex sensitivities of a ring of receiver coils, with :math:`\sum_c |S_c|^2 = 1` everywhere.

    Coil :math:`c` is a small loop, a magnetic dipole with axis :math:`n` at distance :math:`\rho` from a point; it
    receives :math:`S_c = B_x - i B_y` of its field :math:`B = (3 (n \cdot \rho) \rho - n |\rho|^2) / |\rho|^5` (the
    far field of the law of Biot and Savart, by reciprocity). Loops stand on an ellipse around the head, a little
    above or below the slice, with random positions, gains and phases.

    Arguments:
        shape: Height and width of the grid.
        coils: Number of coils.
        generator: Source of the positions; equal generators give the same coils on every grid.

    Returns:
        (coils, H, W) complex64.
    """
    _check_shape(shape)
    if coils < 1:
        raise ValueError(f"coils must be at least 1, got {coils}.")
    dice = _Dice(generator)
    y, x = _axes(shape)
    start = dice.uniform(0, 2 * math.pi)
    maps = []
    for c in range(coils):
        angle = start + 2 * math.pi * (c + dice.uniform(-0.2, 0.2)) / coils
        away, height, tilt = dice.uniform(1.6, 1.8), dice.uniform(-0.4, 0.4), dice.uniform(-0.2, 0.2)
        gain, turn = dice.uniform(0.8, 1.2), dice.uniform(-math.pi, math.pi)
        py, px = away * math.sin(angle), away * math.cos(angle)
        ny, nx, nz = -math.sin(angle + tilt), -math.cos(angle + tilt), -0.3 * height
        ry, rx, rz = y - py, x - px, torch.full((1, 1), 0.05 + 0.3 * abs(height))
        square = ry.square() + rx.square() + rz.square()
        along = ny * ry + nx * rx + nz * rz
        field = torch.complex(3 * along * rx - nx * square, -(3 * along * ry - ny * square)) / square.pow(2.5)
        maps.append(field * complex(gain * math.cos(turn), gain * math.sin(turn)))
    stack = torch.stack(maps)
    return stack / stack.abs().square().sum(0, keepdim=True).sqrt()


def simulate_kspace(
    shape: tuple[int, int] = (160, 128),
    coils: int = 8,
    noise: float = 0.02,
    generator: Generator | None = None,
    finer: int = 2,
    covariance: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Fully sampled multi-coil k-space of a random head, rendered on a finer grid.

    The complex head and the coil maps are drawn on a grid ``finer`` times finer, multiplied, transformed with the
    centred orthonormal FFT, and the central (H, W) frequencies are kept: the image seen by the (H, W) grid is the
    band-limited one, with the Gibbs ringing of a real scan.

    Arguments:
        shape: Height and width of k-space.
        coils: Number of coils.
        noise: Standard deviation per real component, in units of the image (99th percentile 1).
        generator: Source of anatomy, coils and noise.
        finer: Factor of the finer grid.
        covariance: Complex Hermitian (coils, coils) correlation of the noise between coils, scaled by ``noise**2``; by
            default a random one with unit diagonal and correlations of about 0.2.

    Returns:
        k-space (coils, H, W) complex64, and the truth: ``image`` (H, W) complex64, the band-limited head on the
        coarse grid; ``maps`` (coils, H, W), the coils on the coarse grid; ``covariance`` (coils, coils), per real
        component; ``clean``, k-space without noise.
    """
    _check_shape(shape)
    if not noise >= 0:
        raise ValueError(f"noise must not be negative, got {noise}.")
    if finer < 1:
        raise ValueError(f"finer must be a whole number of at least 1, got {finer}.")
    seeds = torch.randint(0, 2**62, (4,), generator=explicit(generator)).tolist()
    anatomy, ring, correlation, draw = (Generator().manual_seed(seed) for seed in seeds)
    fine = (shape[0] * finer, shape[1] * finer)
    image = head_phantom(fine, anatomy, oversample=2, phase=True)
    maps = coil_maps(fine, coils, ring)
    clean = _crop(_fft(maps * image), shape) / finer
    band_limited = _fft(_crop(_fft(image), shape) / finer, inverse=True)
    if covariance is None:
        mix = torch.randn(coils, coils, 2, generator=correlation)
        factor = torch.eye(coils, dtype=torch.complex64) + 0.12 * torch.view_as_complex(mix)
        covariance = factor @ factor.mH
        scale = covariance.diagonal().real.rsqrt().to(torch.complex64)
        covariance = scale[:, None] * covariance * scale[None, :]
    elif tuple(covariance.shape) != (coils, coils):
        raise ValueError(f"covariance must have shape ({coils}, {coils}), got {tuple(covariance.shape)}.")
    white = torch.view_as_complex(torch.randn(coils, *shape, 2, generator=draw))
    root = torch.linalg.cholesky(covariance.to(torch.complex128)).to(torch.complex64)
    kspace = clean + noise * torch.einsum("cd,dhw->chw", root, white)
    ring_again = Generator().manual_seed(seeds[1])
    truth = {
        "image": band_limited,
        "maps": coil_maps(shape, coils, ring_again),
        "covariance": noise**2 * covariance,
        "clean": clean,
    }
    return kspace, truth


def _fft(x: Tensor, inverse: bool = False) -> Tensor:
    """Centred orthonormal FFT over the last two dimensions."""
    dims = (-2, -1)
    transform = torch.fft.ifft2 if inverse else torch.fft.fft2
    return torch.fft.fftshift(transform(torch.fft.ifftshift(x, dim=dims), norm="ortho"), dim=dims)


def _crop(k: Tensor, shape: tuple[int, int]) -> Tensor:
    """Central (H, W) frequencies, keeping the zero frequency at index n // 2."""
    top, left = (k.shape[-2] // 2 - shape[0] // 2), (k.shape[-1] // 2 - shape[1] // 2)
    return k[..., top : top + shape[0], left : left + shape[1]]
