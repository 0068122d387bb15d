"""One plain training loop, on accelerate: of engines that learn and of the miniature's foundation models."""

import contextlib
import inspect
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import nn

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.core.provenance import seed_for
from gen4det.core.seeding import seed_torch
from gen4det.training import processes
from gen4det.training.losses import CPU_SECONDS, Losses
from gen4det.training.stop import Stop, Stopped
from gen4det.training.work_folder import WorkFolder

LOOK_STEPS = 10
"""Steps between two looks at the losses; each waits for the GPU."""
LATE = 10**9
"""Steps after which an average's decay no longer grows."""
PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}

StepLoss = Callable[..., torch.Tensor | dict[str, torch.Tensor]]
"""Maps a step and a generator to the loss of one part of its batch: a scalar, or scalars by name to be
added up; their names contain "loss", none is just that. One with an argument `part` is told by this name
which part it is, from 0."""

Share = Callable[[str, nn.Parameter], tuple[float, float]]
"""(multiple of the learning rate, multiple of the weight decay) of a parameter, named "<place of its module
among those given>.<its name there>", e.g. "0.conv_in.weight"."""


def train(
    modules: Sequence[nn.Module],
    step_loss: StepLoss,
    *,
    steps: int,
    work: WorkFolder | str | Path,
    fingerprint: dict | None = None,
    learning_rate: float,
    warmup: int = 100,
    constant_share: float = 0.0,
    falling: Literal["linear", "cosine"] = "linear",
    schedule: Callable[[int], float] | None = None,
    share: Share | None = None,
    ema_decay: float | None = None,
    ema_warmup: bool = True,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.99),
    max_norm: float = 1.0,
    parts: int = 1,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    seed: int = 0,
    device: str = "cpu",
    stop: Stop | None = None,
    title: str = "training",
) -> dict[str, Any]:
    """Optimise modules with AdamW, or go on where an earlier call was stopped or killed.

        def step_loss(step, rng):  # draws its batch from rng and calls the modules as they are
            clean = latents[rng.integers(0, len(latents), 8)]
            ...
            return (unet(noisy, t, context).sample - noise).square().mean()

        with WorkFolder(output.parent / "work", fingerprint) as work:
            facts = train([unet], step_loss, steps=1000, learning_rate=1e-4, work=work, parts=4, stop=stop)
            unet.save_pretrained(output)
            work.remove()

    All randomness of a step is a function of (seed, step, part): NumPy's in the generator, torch's global one
    is seeded before every call. So a training that was killed and resumed gives the same bytes on a CPU, for
    the same number of threads.

    The gradient of a step is the mean over `parts` calls of `step_loss`: gradient accumulation in one
    process; under torchrun the processes share the parts. Two processes train to what one trains but for
    floating point, because gradients are added in another order; running statistics are those of the parts
    of the first process.

    Args:
        modules: what to optimise; parameters that require no gradient stay as they are, all others must take
            part in every loss. On return they hold the averaged weights (with `ema_decay`) or the last ones,
            and buffers such as running statistics as the last step left them.
        step_loss: the loss of one part.
        steps: optimiser steps.
        work: an entered work folder, or its path; then `fingerprint` is needed. It keeps the checkpoint, also
            that of a finished training, so that what follows may fail: remove it when the result is written.
        fingerprint: what the result depends on, see `WorkFolder`.
        learning_rate: its largest value. It rises linearly over `warmup` steps, stays for `constant_share` of
            all steps and falls to zero; with a share of 1 it never falls.
        falling: how it falls: along a line, or half a period of the cosine.
        schedule: share of the learning rate at a step, from 0, in place of all that.
        share: parts of the learning rate and of the weight decay that single parameters have; None: all of
            both.
        ema_decay: decay of the exponential moving average (diffusers' EMAModel: at step n at most
            n / (9 + n), 0 at the first); None: no average.
        ema_warmup: whether the decay begins so; otherwise it is constant, and decay ** steps is left of the
            weights at the start.
        max_norm: gradients longer than this are shortened to it.
        precision: of the computation under autocast; weights and optimiser stay in float32.
        device: "cpu" or "cuda"; under torchrun each process takes its own GPU.
        stop: asked after every step.
        title: what the progress bar says.

    Returns:
        Facts for the run record: "steps", "losses" (of the last step), "training_seconds", "cpu_seconds" (of
        the first process; both over all attempts), "processes". Losses of all steps: `<work>/losses.csv`.

    Raises:
        Stopped: `stop` was reached; all is saved. Leaves the process with the exit status of `stop`.
        InputError: the folder holds another training, the training diverged, or the parts cannot be shared.
    """
    rank, count = processes.join(device)
    if parts % count:
        raise InputError(f"{title}: {parts} parts of a batch cannot be shared by {count} processes")
    with contextlib.ExitStack() as stack:
        if not isinstance(work, WorkFolder):
            work = stack.enter_context(WorkFolder(work, fingerprint or {}))
        run = _Run(
            modules, step_loss, learning_rate, weight_decay, betas, share, ema_decay, precision, parts, device
        )
        if not ema_warmup:
            run.let_average_stay()
        run.restore(work.take())
        own = range(rank, parts, count)
        saved, cpu = run.step, time.process_time() - run.cpu_seconds
        bar = progress(None, title, "step", total=steps, initial=run.step, hidden=not processes.is_first())
        with bar:
            while run.step < steps and not processes.any_of(stop is not None and stop.reached()):
                started = time.monotonic()
                if schedule is None:
                    rate = learning_rate * rate_at(run.step, steps, warmup, constant_share, falling)
                else:
                    rate = learning_rate * schedule(run.step)
                losses = run.iterate(own, rate, max_norm, seed)
                run.cpu_seconds = time.process_time() - cpu
                run.seconds += time.monotonic() - started
                run.losses.add(losses, cpu_seconds=run.cpu_seconds)
                if run.step % LOOK_STEPS == 0 or run.step == steps:
                    shown = run.losses.latest()
                    bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()}, refresh=False)
                bar.update()
                if work.is_due or run.step == steps:
                    run.save(work)
                    saved = run.step
                if stop is not None:
                    stop.step()
        if run.step < steps:
            if saved < run.step:
                run.save(work)
            processes.wait()  # for the one that saves
            raise Stopped(stop.exit_status)
        if processes.is_first():
            run.losses.write(work.path)
        run.finish()
        processes.wait()
    return {
        "steps": run.step,
        "losses": {name: round(value, 5) for name, value in run.losses.latest().items()},
        "training_seconds": round(run.seconds, 1),
        CPU_SECONDS: round(run.cpu_seconds, 1),
        "processes": count,
    }


def rate_at(step: int, steps: int, warmup: int, constant_share: float, falling: str = "linear") -> float:
    """Share of the learning rate at a step, from 0: rising, constant, falling to zero after the last step."""
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    length = steps * (1 - constant_share)
    left = min(1.0, (steps - step) / length) if length else 1.0
    return rising * (left if falling == "linear" else (1 - math.cos(math.pi * left)) / 2)


def _groups(modules: nn.ModuleList, share: Share, weight_decay: float) -> list[dict]:
    """Parameters with equal parts of learning rate and weight decay together, in the order of the first
    ones."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in modules.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(share(name, parameter), []).append(parameter)
    return [
        {"params": parameters, "share": rate, "weight_decay": decay * weight_decay}
        for (rate, decay), parameters in groups.items()
    ]


class _Part(nn.Module):
    """All modules as one, whose forward is the loss: what DistributedDataParallel and autocast wrap."""

    def __init__(self, modules: Sequence[nn.Module], step_loss: StepLoss):
        super().__init__()
        self.learned = nn.ModuleList(modules)
        self._step_loss = step_loss
        self._told_part = "part" in inspect.signature(step_loss).parameters

    def forward(self, step: int, rng: np.random.Generator, part: int) -> dict[str, torch.Tensor]:
        losses = self._step_loss(step, rng, **({"part": part} if self._told_part else {}))
        return losses if isinstance(losses, dict) else {"loss": losses}


class _Run:
    """The state of a training, and one step of it."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        step_loss: StepLoss,
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        share: Share | None,
        ema_decay: float | None,
        precision: str,
        parts: int,
        device: str,
    ):
        self._modules, self._parts = nn.ModuleList(modules), parts
        self._accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=PRECISIONS[precision],
            gradient_accumulation_steps=parts // processes.world_size(),
        )
        self._modules.to(self._accelerator.device)
        self._learned = [p for p in self._modules.parameters() if p.requires_grad]
        groups = _groups(self._modules, share or (lambda name, parameter: (1.0, 1.0)), weight_decay)
        optimiser = torch.optim.AdamW(
            groups, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True
        )
        # The caller's modules are inside, unchanged: what learns is what the caller's step_loss calls.
        self._part, self._optimiser = self._accelerator.prepare(_Part(modules, step_loss), optimiser)
        self._average = EMAModel(self._learned, decay=ema_decay, foreach=True) if ema_decay else None
        self.step, self.seconds, self.cpu_seconds, self.losses = 0, 0.0, 0.0, Losses()

    def let_average_stay(self) -> None:
        """Let the average decay as if it had been taken for very long."""
        if self._average is not None:
            self._average.optimization_step = LATE

    def iterate(self, own: range, rate: float, max_norm: float, seed: int) -> dict[str, torch.Tensor]:
        """One step on this process's parts; the losses of all processes, averaged, on the device."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["share"]
        sums: dict[str, torch.Tensor] = {}
        for part in own:
            seed_torch(seed_for(seed, "step", self.step, part))
            with self._accelerator.accumulate(self._part):
                losses = self._part(self.step, np.random.default_rng([seed, self.step, part]), part)
                loss = sum(losses.values())
                self._accelerator.backward(loss)
                if self._accelerator.sync_gradients:
                    self._accelerator.clip_grad_norm_(self._learned, max_norm)
                self._optimiser.step()
                self._optimiser.zero_grad()
            for name, value in {**losses, "loss": loss}.items():
                sums[name] = sums.get(name, 0) + value.detach().float()
        if self._average is not None:
            self._average.step(self._learned)
        self.step += 1
        means = {name: value / len(own) for name, value in sums.items()}
        return self._accelerator.reduce(means, "mean")

    def save(self, work: WorkFolder) -> None:
        """Write a checkpoint (first process only)."""
        if not processes.is_first():
            return
        scaler = self._accelerator.scaler
        work.save({
            "iteration": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "losses": self.losses.state(),
            "parameters": [p.detach() for p in self._learned],
            "buffers": list(self._modules.buffers()),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average and self._average.state_dict(),
            "scaler": scaler and scaler.state_dict(),
        })  # fmt: skip

    def restore(self, state: dict | None) -> None:
        """Go on from what was saved."""
        if state is None:
            return
        self.step, self.seconds, self.cpu_seconds = (
            state[key] for key in ("iteration", "seconds", "cpu_seconds")
        )
        self.losses = Losses(state["losses"])
        self._copy(state["parameters"], self._learned)
        self._copy(state["buffers"], list(self._modules.buffers()))
        self._optimiser.load_state_dict(state["optimiser"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
            self._average.to(self._accelerator.device)
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])

    @staticmethod
    def _copy(sources: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source)

    def finish(self) -> None:
        """Leave the averaged weights in the modules."""
        if self._average is not None:
            self._average.copy_to(self._learned)
        self._optimiser.zero_grad()
