"""Posterior samplers: from a prior and a measurement to an ensemble."""

from scidiff.posterior.base import GuidedSampler, MemberSampler, offers
from scidiff.posterior.dps import DPS, AnnealedDPS
from scidiff.posterior.lgd import LGD
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.pigdm import PiGDM, PublishedPiGDM
from scidiff.posterior.registry import get, names, suitable, table
from scidiff.posterior.sda import SDA
from scidiff.posterior.tmpd import TMPD

__all__ = [
    "DPS",
    "LGD",
    "MMPS",
    "SDA",
    "TMPD",
    "AnnealedDPS",
    "GuidedSampler",
    "MemberSampler",
    "PiGDM",
    "PublishedPiGDM",
    "get",
    "names",
    "offers",
    "suitable",
    "table",
]
