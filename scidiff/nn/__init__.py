"""Networks: maps from a field and a noise label or a lead time to a field."""

from scidiff.nn.conditioned import Conditioned
from scidiff.nn.fno import FNO
from scidiff.nn.mesh_cnn import MeshCNN
from scidiff.nn.mp_unet import MPUNet
from scidiff.nn.time_unet import TimeUNet
from scidiff.nn.unet import UNet

__all__ = ["FNO", "Conditioned", "MPUNet", "MeshCNN", "TimeUNet", "UNet"]
