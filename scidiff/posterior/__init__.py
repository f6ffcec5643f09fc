"""Posterior samplers: from a prior and a measurement to an ensemble."""

from scidiff.posterior.base import GuidedSampler, MemberSampler, offers
from scidiff.posterior.dps import DPS
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.registry import get, names, suitable, table

__all__ = ["DPS", "MMPS", "GuidedSampler", "MemberSampler", "get", "names", "offers", "suitable", "table"]
