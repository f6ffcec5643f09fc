"""Networks: maps from a field and a noise label to a field."""

from scidiff.nn.unet import UNet

__all__ = ["UNet"]
