"""Networks: maps from a field and a noise label or a lead time to a field, and autoencoders."""

from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.nn.codebook import Codebook
from scidiff.nn.conditioned import Conditioned
from scidiff.nn.fno import FNO
from scidiff.nn.frames_unet import FramesUNet
from scidiff.nn.mesh_cnn import MeshCNN
from scidiff.nn.mp_unet import MPUNet
from scidiff.nn.time_unet import TimeUNet
from scidiff.nn.unet import UNet
from scidiff.nn.window_net import WindowNet

__all__ = [
    "Codebook",
    "Conditioned",
    "ConvAutoencoder",
    "FNO",
    "FramesUNet",
    "MPUNet",
    "MeshCNN",
    "TimeUNet",
    "UNet",
    "WindowNet",
]
