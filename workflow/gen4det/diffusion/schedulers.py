"""Samplers by name, made from the noise schedule of a checkpoint."""

import inspect
from collections.abc import Sequence

import diffusers
import torch
from diffusers import SchedulerMixin

# What is fixed beside the class, so that a name means the same sampler whatever scheduler a checkpoint
# was saved with: from_config() carries over everything that the saved class shares with the new one.
SAMPLERS: dict[str, tuple[str, dict]] = {
    "lms": ("LMSDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpm-solver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
}


def make_scheduler(checkpoint: SchedulerMixin, name: str) -> SchedulerMixin:
    """A fresh sampler with the checkpoint's noise schedule.

    Multistep samplers carry state from step to step: make one for every batch.

    Args:
        checkpoint: the scheduler that came with the model.
        name: a key of SAMPLERS, or "checkpoint" for the same kind as the checkpoint's.
    """
    if name == "checkpoint":
        return type(checkpoint).from_config(checkpoint.config)
    kind, fixed = SAMPLERS[name]
    return getattr(diffusers, kind).from_config(checkpoint.config, **fixed)


def step_options(scheduler: SchedulerMixin, generators: Sequence[torch.Generator] | None) -> dict:
    """Keyword arguments of `scheduler.step` that samplers with added noise need.

    Each image's noise comes from its own stream; samplers without noise get nothing.
    """
    accepts = inspect.signature(scheduler.step).parameters
    return {"generator": list(generators)} if generators and "generator" in accepts else {}
