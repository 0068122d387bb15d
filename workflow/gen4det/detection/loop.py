"""A training loop for mmengine's Runner that can be stopped, or killed, at any iteration.

All randomness is a function of (seed, iteration): the order of images and their augmentation (samplers.py),
and the sampling of regions inside the model, for which the generators are seeded here before every iteration.
A checkpoint therefore needs no generator states.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from gen4det.core.progress import progress
from gen4det.core.provenance import seed_for
from gen4det.detection.datasets import seed_everything
from gen4det.training import processes
from gen4det.training.losses import Losses
from gen4det.training.stop import Stop
from gen4det.training.work_folder import WorkFolder

LOOK_ITERATIONS = 10
"""Iterations between two looks at the losses; each waits for the GPU."""


class TrainingLoop(BaseLoop):
    """Iterations until `max_iters`, or until told to stop.

    Args:
        runner, dataloader: mmengine's; the loader's batch_sampler is a `BatchSampler`.
        max_iters: length of the training.
        seed: of the training.
        work: where to save, and what a loop before this one saved.
        stop: asked after every iteration.
    """

    max_epochs = 1
    epoch = 0

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader,
        *,
        max_iters: int,
        seed: int,
        work: WorkFolder,
        stop: Stop | None,
    ):
        super().__init__(runner, dataloader)
        self.max_iters = max_iters
        self.seed = seed
        self.iter = 0
        """Finished iterations."""
        self.seconds = 0.0
        """Time in iterations, earlier attempts included."""
        self.losses = Losses()
        self._work = work
        self._stop = stop

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.iter >= self.max_iters

    def run(self) -> nn.Module:
        """Train; saves on the way, and at the end if it is not the end of the training."""
        if (state := self._work.take()) is not None:
            self._restore(state)
        runner = self.runner
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        runner.model.train()
        self.dataloader.batch_sampler.start = self.iter
        batches = iter(self.dataloader)
        saved = self.iter
        with progress(
            None,
            "training",
            "iteration",
            total=self.max_iters,
            initial=self.iter,
            hidden=not processes.is_first(),
        ) as bar:
            while not self.finished and not self._told_to_stop():
                started = time.monotonic()
                self._iterate(next(batches))
                self.seconds += time.monotonic() - started
                if self.iter % LOOK_ITERATIONS == 0 or self.finished:
                    bar.set_postfix(self._shown(), refresh=False)
                bar.update()
                if self._work.is_due:
                    self.save()
                    saved = self.iter
                if self._stop is not None:
                    self._stop.step()
        if not self.finished:
            if saved < self.iter:
                self.save()
            processes.wait()  # for the one that saves
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def _iterate(self, batch: dict) -> None:
        runner = self.runner
        seed_everything(seed_for(self.seed, "iteration", self.iter, runner.rank))
        runner.call_hook("before_train_iter", batch_idx=self.iter, data_batch=batch)
        outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        self.losses.add(outputs)
        runner.call_hook("after_train_iter", batch_idx=self.iter, data_batch=batch, outputs=outputs)
        self.iter += 1

    def _shown(self) -> dict[str, str]:
        latest = self.losses.latest()
        parts = {name.removeprefix("loss_"): value for name, value in latest.items()}
        return {name: f"{value:.3f}" for name, value in parts.items()}

    def _told_to_stop(self) -> bool:
        """Whether any process is told to stop; all must do so after the same iteration."""
        return processes.any_of(self._stop is not None and self._stop.reached())

    # --- checkpoints ----------------------------------------------------------------------------------

    def state(self) -> dict:
        """All that the iterations to come depend on. Keys that hooks know have mmengine's names."""
        model = self.runner.model
        state = {
            "iteration": self.iter,
            "seconds": self.seconds,
            "state_dict": (model.module if is_model_wrapper(model) else model).state_dict(),
            "optimizer": self.runner.optim_wrapper.state_dict(),
            "param_schedulers": [s.state_dict() for s in self.runner.param_schedulers or []],
            "losses": self.losses.state(),
        }
        self.runner.call_hook("before_save_checkpoint", checkpoint=state)
        return state

    def save(self) -> None:
        """Write a checkpoint (first process only)."""
        if processes.is_first():
            self._work.save(self.state())

    def _restore(self, state: dict) -> None:
        runner = self.runner
        runner.call_hook("after_load_checkpoint", checkpoint=state)
        model = runner.model
        (model.module if is_model_wrapper(model) else model).load_state_dict(state["state_dict"])
        runner.optim_wrapper.load_state_dict(state["optimizer"])
        for scheduler, values in zip(runner.param_schedulers or [], state["param_schedulers"], strict=True):
            scheduler.load_state_dict(values)
        self.iter, self.seconds = state["iteration"], state["seconds"]
        self.losses = Losses(state["losses"])
        runner.optim_wrapper.initialize_count_status(model, self.iter, self.max_iters)


class _PreparedRunner(Runner):
    """A Runner whose model comes on its device and with its initial weights."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        return model

    def _init_model_weights(self) -> None:
        pass

    def build_train_loop(self, loop: Callable[[Runner, DataLoader], TrainingLoop]) -> TrainingLoop:
        return loop(self, self._train_dataloader)


def _in_one_call(optim_wrapper: dict) -> dict:
    """The same optimiser; SGD takes all parameters in one call, on the CPU, too, where PyTorch takes them
    one by one. The arithmetic of each number is the same.
    """
    settings = copy.deepcopy(optim_wrapper)
    optimiser = settings.get("optimizer") or {}
    if optimiser.get("type") == "SGD" and not {"foreach", "fused"} & set(optimiser):
        optimiser["foreach"] = True
    return settings


def make_runner(
    config: Config,
    model: nn.Module,
    loader: DataLoader,
    loop: Callable[[Runner, DataLoader], TrainingLoop],
    folder: Path,
) -> Runner:
    """mmengine's Runner around a model: optimiser, schedule and hooks of the config, and our loop.

    Args:
        model: on its device, initialised; wrapped if the training is distributed.
        loop: makes the loop.
        folder: scratch for mmengine's own logs.
    """
    return _PreparedRunner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=loop,
        optim_wrapper=_in_one_call(config.optim_wrapper),
        param_scheduler=config.get("param_scheduler"),
        default_hooks=dict(timer=None, logger=None, checkpoint=None, sampler_seed=None),
        custom_hooks=config.get("custom_hooks"),
        visualizer=dict(type="Visualizer", vis_backends=[]),
        default_scope="mmdet",
        log_level="WARNING",
        experiment_name=f"training-{time.monotonic_ns()}",
    )
