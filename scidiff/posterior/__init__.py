"""Posterior samplers: from a prior and a measurement to an ensemble."""

from scidiff.posterior.base import GuidedSampler, MemberSampler, offers
from scidiff.posterior.daps import DAPS
from scidiff.posterior.dps import DPS
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.pnpdm import PnPDM
from scidiff.posterior.red_diff import REDDiff
from scidiff.posterior.registry import get, names, suitable, table

__all__ = [
    "DAPS",
    "DPS",
    "MMPS",
    "GuidedSampler",
    "MemberSampler",
    "PnPDM",
    "REDDiff",
    "get",
    "names",
    "offers",
    "suitable",
    "table",
]
