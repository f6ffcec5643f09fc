"""Networks: maps from a field and a noise label to a field."""

from scidiff.nn.conditioned import Conditioned
from scidiff.nn.mp_unet import MPUNet
from scidiff.nn.unet import UNet

__all__ = ["Conditioned", "MPUNet", "UNet"]
