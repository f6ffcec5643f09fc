"""Posterior samplers: from a prior and a measurement to an ensemble."""

from scidiff.posterior.base import GuidedSampler, MemberSampler, offers
from scidiff.posterior.daps import DAPS
from scidiff.posterior.ddnm import DDNM
from scidiff.posterior.ddrm import DDRM
from scidiff.posterior.dds import DDS
from scidiff.posterior.diffpir import DiffPIR
from scidiff.posterior.dpg import DPG
from scidiff.posterior.dps import DPS
from scidiff.posterior.dps_gsg import DPSGSG
from scidiff.posterior.eki import EKI
from scidiff.posterior.enkg import EnKG
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.pnpdm import PnPDM
from scidiff.posterior.red_diff import REDDiff
from scidiff.posterior.registry import get, names, suitable, table
from scidiff.posterior.scg import SCG

__all__ = [
    "DDNM",
    "DDRM",
    "DDS",
    "DPS",
    "MMPS",
    "DiffPIR",
    "GuidedSampler",
    "MemberSampler",
    "DAPS",
    "PnPDM",
    "REDDiff",
    "DPG",
    "DPSGSG",
    "EKI",
    "EnKG",
    "SCG",
    "get",
    "names",
    "offers",
    "suitable",
    "table",
]
