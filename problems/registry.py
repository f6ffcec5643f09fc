"""Problems by name: what the command line and `scidiff.reconstruct` look up."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from scidiff.arguments import near, require_kinds

__all__ = ["get", "names"]

_PROBLEMS = {
    "black-hole": ("scidiff.problems.black_hole", "BlackHoleImaging"),
    "burgers": ("scidiff.problems.burgers", "BurgersSensors"),
    "ct": ("scidiff.problems.tomography", "SparseViewCT"),
    "ct-limited": ("scidiff.problems.tomography", "LimitedAngleCT"),
    "darcy-forward": ("scidiff.problems.darcy", "DarcyForward"),
    "darcy-inverse": ("scidiff.problems.darcy", "DarcyInverse"),
    "deblurring": ("scidiff.problems.deblurring", "Deblurring"),
    "gaussian": ("scidiff.problems.gaussian", "GaussianInpainting"),
    "helmholtz-forward": ("scidiff.problems.poisson", "HelmholtzForward"),
    "helmholtz-inverse": ("scidiff.problems.poisson", "HelmholtzInverse"),
    "inpainting": ("scidiff.problems.inpainting", "Inpainting"),
    "kolmogorov": ("scidiff.problems.kolmogorov", "KolmogorovAssimilation"),
    "lorenz": ("scidiff.problems.lorenz", "LorenzAssimilation"),
    "mri": ("scidiff.problems.mri", "AcceleratedMRI"),
    "navier-stokes": ("scidiff.problems.navier_stokes", "NavierStokesInitial"),
    "navier-stokes-forward": ("scidiff.problems.navier_stokes_points", "NavierStokesForward"),
    "navier-stokes-inverse": ("scidiff.problems.navier_stokes_points", "NavierStokesInverse"),
    "phase-retrieval": ("scidiff.problems.phase_retrieval", "PhaseRetrieval"),
    "poisson-forward": ("scidiff.problems.poisson", "PoissonForward"),
    "poisson-inverse": ("scidiff.problems.poisson", "PoissonInverse"),
    "stations": ("scidiff.problems.stations", "StationTemperature"),
    "super-resolution": ("scidiff.problems.super_resolution", "SuperResolution"),
    "widefield": ("scidiff.problems.widefield", "WidefieldDeconvolution"),
}


def names() -> list[str]:
    """Names of all problems."""
    return sorted(_PROBLEMS)


def get(name: str, **parameters: Any) -> Any:
    """The problem of that name.

    Arguments:
        name: One of `names`.
        parameters: Arguments of its constructor.

    Raises:
        ValueError: for an unknown name or parameter; the message lists what there is.
        TypeError: for text where a number belongs.
    """
    if name not in _PROBLEMS:
        raise ValueError(f"there is no problem {name!r};{near(name, names())} problems are {', '.join(names())}.")
    module, cls = _PROBLEMS[name]
    problem = getattr(import_module(module), cls)
    known = inspect.signature(problem).parameters
    for parameter in parameters:
        if parameter not in known:
            hint = near(parameter, known)
            raise ValueError(f"problem {name!r} has no parameter {parameter!r};{hint} it takes {', '.join(known)}.")
    require_kinds(f"problem {name!r}", parameters, {key: p.annotation for key, p in known.items()})
    return problem(**parameters)
