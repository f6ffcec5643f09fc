"""Posterior samplers: from a prior and a measurement to an ensemble."""

from scidiff.posterior.base import GuidedSampler, MemberSampler, offers
from scidiff.posterior.dpg import DPG
from scidiff.posterior.dps import DPS
from scidiff.posterior.dps_gsg import DPSGSG
from scidiff.posterior.eki import EKI
from scidiff.posterior.enkg import EnKG
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.registry import get, names, suitable, table
from scidiff.posterior.scg import SCG

__all__ = [
    "DPG",
    "DPS",
    "DPSGSG",
    "EKI",
    "EnKG",
    "GuidedSampler",
    "MMPS",
    "MemberSampler",
    "SCG",
    "get",
    "names",
    "offers",
    "suitable",
    "table",
]
