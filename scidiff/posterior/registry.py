"""The posterior samplers by name, for the command line and `scidiff.reconstruct`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from scidiff.arguments import near, require_kinds
from scidiff.posterior.base import MemberSampler
from scidiff.posterior.daps import DAPS
from scidiff.posterior.ddnm import DDNM
from scidiff.posterior.ddrm import DDRM
from scidiff.posterior.dds import DDS
from scidiff.posterior.diffpir import DiffPIR
from scidiff.posterior.diffusion_pde import DiffusionPDE
from scidiff.posterior.dpg import DPG
from scidiff.posterior.dps import DPS, AnnealedDPS
from scidiff.posterior.dps_gsg import DPSGSG
from scidiff.posterior.eki import EKI
from scidiff.posterior.enkg import EnKG
from scidiff.posterior.fps import FPS
from scidiff.posterior.latent_daps import LatentDAPS
from scidiff.posterior.latent_dps import LatentDPS
from scidiff.posterior.lgd import LGD
from scidiff.posterior.mcgdiff import MCGDiff
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.pigdm import PiGDM, PublishedPiGDM
from scidiff.posterior.pnpdm import PnPDM
from scidiff.posterior.psld import PSLD
from scidiff.posterior.red_diff import REDDiff
from scidiff.posterior.resample import ReSample
from scidiff.posterior.scg import SCG
from scidiff.posterior.sda import SDA
from scidiff.posterior.tds import TDS
from scidiff.posterior.tmpd import TMPD

__all__ = ["FAMILIES", "SAMPLERS", "get", "names", "suitable", "table"]

FAMILIES: dict[str, dict[str, type[MemberSampler]]] = {
    "guidance": {
        "mmps": MMPS,
        "pigdm": PiGDM,
        "tmpd": TMPD,
        "sda": SDA,
        "lgd": LGD,
        "dps": DPS,
        "dps_annealed": AnnealedDPS,
        "pigdm_published": PublishedPiGDM,
        "diffusion_pde": DiffusionPDE,
    },
    "gibbs": {"daps": DAPS, "pnpdm": PnPDM},
    "monte carlo": {"tds": TDS, "mcgdiff": MCGDiff, "fps": FPS},
    "projection": {"ddrm": DDRM, "ddnm": DDNM, "diffpir": DiffPIR, "dds": DDS},
    "derivative-free": {"enkg": EnKG, "eki": EKI, "scg": SCG, "dpg": DPG, "dps_gsg": DPSGSG},
    "latent": {"resample": ReSample, "latent_daps": LatentDAPS, "psld": PSLD, "latent_dps": LatentDPS},
    "point estimate": {"red_diff": REDDiff},
}
"""Methods by kin: conditional denoisers, alternating draws, weighted particles, data consistency per step,
answers for priors behind a decoder, ..."""

SAMPLERS: dict[str, type[MemberSampler]] = {name: kind for kin in FAMILIES.values() for name, kind in kin.items()}


def names() -> list[str]:
    """Names that `get` takes, recommended first."""
    return list(SAMPLERS)


def suitable(given: Iterable[str]) -> list[str]:
    """Names of the samplers that work with what a posterior offers, see `scidiff.posterior.base.offers`."""
    return [name for name, kind in SAMPLERS.items() if kind.requires <= frozenset(given)]


def table() -> list[dict[str, str]]:
    """One row per sampler: what it works with, what it requires, first line of its documentation.

    ``nonlinear``: nonlinear operators or priors; ``counts``: noise that is not Gaussian, such as Poisson;
    ``black box``: forward calls of the operator are enough.
    """
    return [
        {
            "name": name,
            "family": next(family for family, kin in FAMILIES.items() if name in kin),
            "nonlinear": "no" if {"linear", "svd"} & kind.requires else "yes",
            "counts": "no" if "gaussian" in kind.requires else "yes",
            "black box": "no" if {"gradient", "linear", "svd"} & kind.requires else "yes",
            "requires": ", ".join(sorted(kind.requires)) or "nothing",
            "summary": (kind.__doc__ or "").split("\n")[0],
        }
        for name, kind in SAMPLERS.items()
    ]


def get(name: str, **parameters: Any) -> MemberSampler:
    """A sampler by name, with parameters of the method or of its integrator.

    Arguments:
        name: One of `names`.
        parameters: Fields of the class, ``get("mmps", iterations=10)``; for guided samplers also fields of the
            integrator, ``get("mmps", steps=32)``.

    Raises:
        ValueError: Unknown name.
        TypeError: Unknown parameter, or text where a number belongs; the message says what is expected.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r};{near(name, names())} samplers are {', '.join(names())}.")
    kind = SAMPLERS[name]
    own = {f.name: f.type for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    require_kinds(name, parameters, own)
    method = kind(**{key: value for key, value in parameters.items() if key in own})
    rest = {key: value for key, value in parameters.items() if key not in own}
    integrator = getattr(method, "sampler", None)  # of guided samplers, and of PnPDM
    inner = {f.name: f.type for f in dataclasses.fields(integrator)} if dataclasses.is_dataclass(integrator) else {}
    if unknown := sorted(set(rest) - set(inner)):
        known = sorted({*own, *inner})
        hint = near(unknown[0], known)
        raise TypeError(f"{name} has no parameter {', '.join(unknown)};{hint} it has {', '.join(known)}.")
    require_kinds(name, rest, inner)
    if rest:
        method = dataclasses.replace(method, sampler=dataclasses.replace(integrator, **rest))  # type: ignore[type-var]
    return method
