"""Projectors of the ASTRA toolbox as an alternative to Joseph's weights (the extra ``ct``).

ASTRA computes the weights once, on the CPU; products, adjoint, derivatives and GPU are those of `Projector`, so that
the adjoint is exact. ASTRA's weights have single precision, which is the accuracy of results in float64 too.

References:
    Fast and flexible X-ray tomography using the ASTRA toolbox. van Aarle et al., 2016, Optics Express 24.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.tomography.fan import FanBeam
from scidiff.operators.tomography.filters import FilterName
from scidiff.operators.tomography.joseph import Rays
from scidiff.operators.tomography.parallel import ParallelBeam
from scidiff.operators.tomography.projector import Projector
from scidiff.optional import optional

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["AstraProjector"]


class AstraProjector(Projector):
    """The geometry of another operator with the weights of ASTRA.

    Arguments:
        geometry: `ParallelBeam`, or `FanBeam` with a flat detector.
        model: "linear" interpolates as Joseph does (parallel beams only), "line" takes the length of a ray within each
            pixel, "strip" the area of a bin's strip within each pixel (parallel beams only).

    Raises:
        MissingPackageError: if ASTRA is not installed.
        ValueError: if ASTRA has no such projector: for an arc, for pixels that are not square with "linear".
    """

    def __init__(self, geometry: ParallelBeam | FanBeam, model: Literal["linear", "line", "strip"] = "linear") -> None:
        fan = isinstance(geometry, FanBeam)
        if model not in ("linear", "line", "strip"):
            raise ValueError(f"model must be 'linear', 'line' or 'strip', got {model!r}.")
        if fan and (geometry.detector != "flat" or model != "line"):
            raise ValueError(
                "of fan beams ASTRA has the flat detector with model='line' on the CPU; use FanBeam itself."
            )
        if not math.isclose(*geometry.pixel, rel_tol=1e-9):
            raise ValueError(f"ASTRA's projectors need square pixels, got {geometry.pixel}; use the geometry itself.")
        optional("astra", "ct", "astra-toolbox")
        self.geometry, self.model = geometry, model
        self.shape, self.pixel, self.angles = geometry.shape, geometry.pixel, geometry.angles
        self.bins, self.rays_per_bin = geometry.bins, geometry.rays_per_bin

    def __repr__(self) -> str:
        return f"AstraProjector({self.geometry}, model={self.model!r})"

    def rays(self) -> Rays:
        return self.geometry.rays()

    def fbp(self, y: Tensor, filter: FilterName = "ramp", cutoff: float = 1.0) -> Tensor:
        """Filtered backprojection of the geometry."""
        return self.geometry.fbp(y, filter, cutoff)

    def matrix(self, dtype: Any = "float64") -> csr_array:
        from scipy.sparse import csr_array

        astra: Any = optional("astra", "ct", "astra-toolbox")
        geometry = self.geometry
        height, width = (n * p / 2 for n, p in zip(self.shape, self.pixel, strict=True))
        volume = astra.create_vol_geom(*self.shape, -width, width, -height, height)
        theta = torch.deg2rad(self.angles).numpy()
        across = np.stack([np.cos(theta), np.sin(theta)], -1)
        along = np.stack([-np.sin(theta), np.cos(theta)], -1)
        middle = ((geometry.bins - 1) / 2 - geometry.centre) * geometry.bin_width * across
        step = geometry.bin_width * across
        if isinstance(geometry, FanBeam):
            vectors = [-geometry.source_distance * along, geometry.detector_distance * along + middle, step]
            kind, name = "fanflat_vec", "line_fanflat"
        else:
            vectors, kind, name = [along, middle, step], "parallel_vec", self.model
        projector = astra.create_projector(
            name, astra.create_proj_geom(kind, geometry.bins, np.concatenate(vectors, -1)), volume
        )
        matrix = astra.projector.matrix(projector)
        try:
            found = csr_array(astra.matrix.get(matrix), dtype=dtype)
        finally:
            astra.matrix.delete(matrix)
            astra.projector.delete(projector)
        found.indices, found.indptr = found.indices.astype(np.int32), found.indptr.astype(np.int32)
        return found
