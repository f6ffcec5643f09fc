"""Training of priors in plain torch: loss, moving average, exact resume, data parallel."""

from scidiff.training.loop import TrainingConfig, train

__all__ = ["TrainingConfig", "train"]
