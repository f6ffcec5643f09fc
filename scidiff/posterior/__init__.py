"""Posterior samplers: from a prior and a measurement to an ensemble."""

from scidiff.posterior.base import GuidedSampler, MemberSampler, offers
from scidiff.posterior.dps import DPS
from scidiff.posterior.fps import FPS
from scidiff.posterior.mcgdiff import MCGDiff
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.registry import get, names, suitable, table
from scidiff.posterior.tds import TDS

__all__ = [
    "DPS",
    "FPS",
    "MMPS",
    "TDS",
    "MCGDiff",
    "GuidedSampler",
    "MemberSampler",
    "get",
    "names",
    "offers",
    "suitable",
    "table",
]
