"""Posterior samplers: from a prior and a measurement to an ensemble."""

from scidiff.posterior.base import GuidedSampler, MemberSampler, offers
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
from scidiff.posterior.latent import LatentSampler
from scidiff.posterior.latent_daps import LatentDAPS
from scidiff.posterior.latent_dps import LatentDPS
from scidiff.posterior.lgd import LGD
from scidiff.posterior.mcgdiff import MCGDiff
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.pigdm import PiGDM, PublishedPiGDM
from scidiff.posterior.pnpdm import PnPDM
from scidiff.posterior.population import PopulationSampler
from scidiff.posterior.psld import PSLD
from scidiff.posterior.red_diff import REDDiff
from scidiff.posterior.registry import get, names, suitable, table
from scidiff.posterior.resample import ReSample
from scidiff.posterior.scg import SCG
from scidiff.posterior.sda import SDA
from scidiff.posterior.tds import TDS
from scidiff.posterior.tmpd import TMPD

__all__ = [
    "DAPS", "DDNM", "DDRM", "DDS", "DPG", "DPS", "DPSGSG", "EKI", "FPS", "LGD", "MMPS", "PSLD", "SCG", "SDA", "TDS",
    "TMPD", "AnnealedDPS", "DiffPIR", "DiffusionPDE", "EnKG", "GuidedSampler", "LatentDAPS", "LatentDPS",
    "LatentSampler", "MCGDiff", "MemberSampler", "PiGDM", "PnPDM", "PopulationSampler", "PublishedPiGDM", "REDDiff",
    "ReSample", "get", "names", "offers", "suitable", "table",
]  # fmt: skip
