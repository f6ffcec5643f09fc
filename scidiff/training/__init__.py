"""Training of priors in plain torch: losses, moving averages, exact resume, data parallel, early warning."""

from scidiff.training.config import TrainingConfig
from scidiff.training.loop import train

__all__ = ["TrainingConfig", "train"]
