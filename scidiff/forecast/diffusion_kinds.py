r"""Kinds of forecasters that diffuse, for the table `scidiff.forecast.kinds.KINDS`.

=========  ======================================================================================================
kind
=========  ======================================================================================================
``edm``     blocks of h states, residual target, log-normal noise levels, UniPC
``ddpm``    the same with the levels of DDPM, few or many, and ancestral sampling
``mcvd``    states as target; past and future states withheld half of the time: predicts, interpolates, generates
=========  ======================================================================================================
"""

from __future__ import annotations

from typing import Any

from torch import nn

from scidiff.forecast.conditional import ConditionalDenoiser, ConditionalDiffusion
from scidiff.forecast.diffusion_loss import BlockDenoisingLoss, OnLevels, residual_scale
from scidiff.forecast.kinds import MakeNetwork, Setting, Stage
from scidiff.schedules import vp_linear
from scidiff.training.levels import LogNormal
from scidiff.training.losses import edm, simple

__all__ = ["ddpm_stage", "edm_stage", "mcvd_stage"]


def _stage(network: MakeNetwork, s: Setting, options: dict[str, Any], **loss: Any) -> Stage:
    if s.score:
        raise ValueError("[loss] is for ensembles; a diffusion minimises the denoising error, leave the table out.")
    if options["target"] == "residual":
        if s.source is None:
            raise ValueError("the residual target needs the training windows: Setting(source=...).")
        options["scale"] = residual_scale(s.source, s.horizon, s.channels).tolist()
    form = ConditionalDiffusion(nn.Identity(), s.horizon, s.window, **options)
    denoiser = ConditionalDenoiser(network(form.inputs(s.channels, s.forcings), s.horizon * s.channels))
    return Stage(
        denoiser,
        BlockDenoisingLoss(form, s.channels, **loss),
        lambda trained: ConditionalDiffusion(trained, s.horizon, s.window, **options),
    )


def edm_stage(network: MakeNetwork, s: Setting) -> Stage:
    """EDM: options target, sampler, level_mean and level_std of the logarithm of noise levels."""
    options = {
        "target": s.options.pop("target", "residual"),
        "sampler": s.options.pop("sampler", {"kind": "UniPC", "steps": 20}),
    }
    levels = LogNormal(float(s.options.pop("level_mean", -1.2)), float(s.options.pop("level_std", 1.2)))
    return _stage(network, s, options, levels=levels, weight=edm)


def ddpm_stage(network: MakeNetwork, s: Setting) -> Stage:
    """DDPM: options target, diffusion_steps (levels of training; 5 as DYffusion's baseline has), sampler."""
    steps = int(s.options.pop("diffusion_steps", 5))
    options = {
        "target": s.options.pop("target", "residual"),
        "sampler": s.options.pop("sampler", {"kind": "DDPM", "steps": steps}),
    }
    return _stage(network, s, options, levels=OnLevels(tuple(vp_linear(steps).tolist()[:-1])), weight=simple)


def mcvd_stage(network: MakeNetwork, s: Setting) -> Stage:
    """MCVD: options future (states after the block), withhold, diffusion_steps, sampler (100 ancestral steps)."""
    steps = int(s.options.pop("diffusion_steps", 1000))
    options = {
        "target": "state",
        "masked": True,
        "future": int(s.options.pop("future", 0)),
        "sampler": s.options.pop("sampler", {"kind": "DDPM", "steps": min(steps, 100)}),
    }
    withhold = float(s.options.pop("withhold", 0.5))
    levels = OnLevels(tuple(vp_linear(steps).tolist()[:-1]))
    return _stage(network, s, options, levels=levels, weight=simple, withhold=withhold)
