"""Training of one detector on real and synthetic images."""

import functools
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import DataLoader

from gen4det.core.errors import InputError
from gen4det.core.precision import set_float32_arithmetic
from gen4det.core.provenance import seed_for
from gen4det.core.settings import parse_settings
from gen4det.data.datasets import Dataset, Split
from gen4det.data.label_sets import LabelSet
from gen4det.data.shards import open_synthetic
from gen4det.detection import mmcv_ext
from gen4det.detection.completeness import make_aware, require_aware
from gen4det.detection.datasets import DetectionDataset, Source, seed_everything
from gen4det.detection.detectors import (
    build_model,
    build_pipeline,
    fit_diffusion,
    load_backbone,
    load_config,
)
from gen4det.detection.loading import ignore_signals
from gen4det.detection.loop import TrainingLoop, make_runner
from gen4det.detection.samplers import BatchSampler, InterleavedSampler, Pool, repeat_factors, replayed
from gen4det.detection.settings import Completeness, DetectorSettings, LabelSettings, TrainSettings
from gen4det.detection.weights import save_weights
from gen4det.training import processes
from gen4det.training.stop import Stop
from gen4det.training.work_folder import WorkFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """Outcome of a call of `train`."""

    finished: bool
    """False: stopped before the end; progress is saved, no result was written."""
    iteration: int
    """Finished iterations."""
    facts: dict = field(default_factory=dict)
    """For the run record: images per source, last losses, seconds of training over all attempts."""


def train(
    settings: TrainSettings,
    dataset: Dataset,
    synthetic: list[Path],
    output: Path,
    *,
    fingerprint: dict,
    device: str = "cpu",
    workers: int = 0,
    stop: Stop | None = None,
) -> Trained:
    """Train a detector, or go on with it where an earlier call was stopped or killed.

    Writes `output` (safetensors with classes and config) and losses.csv beside it. Until then all
    lies in the folder `work` beside it, which is removed in the end. On a CPU the result is the same to the
    bit whether or not the training was interrupted, for the same number of threads.

    Several processes, each with a part of every batch, train to what one process trains with the same batches
    but for this: sums are added in another order; regions are sampled with other random numbers; losses that
    are means over the regions found, such as that of masks, are means of each process first, as usual in
    mmdet; batch normalisation that learns sees the images of its own process.

    Args:
        dataset: its training split is the real data; its categories are the detector's classes.
        synthetic: annotation files of synthetic sets that are trained on as well.
        fingerprint: what the result depends on; a checkpoint made with another one is refused.
        device: "cpu" or "cuda". Under torchrun every process takes a part of each batch, and its own GPU.
        workers: processes that load images; they never change the result.
        stop: asked after every iteration; on yes the training is saved and the call returns.

    Raises:
        InputError: data, config, weights or checkpoint are unusable, or the training diverged.
    """
    rank, world_size = processes.join(device)
    sources, categories = load_sources(dataset, synthetic, real=settings.real, detector=settings.detector)
    detector = settings.detector
    set_float32_arithmetic(detector.precision)
    config = load_config(
        detector.config,
        classes=len(categories),
        iterations=detector.iterations,
        schedule=detector.schedule,
    )
    if config.batch_size % world_size:
        raise InputError(
            f"{detector.config}: batch_size {config.batch_size} does not divide into {world_size} parts"
        )
    for key in ("train_pipeline", "test_pipeline"):  # else known in the first batch, or after the training
        build_pipeline(config[key], where=f"{detector.config}: {key}")
    frozen = fit_diffusion(config.model, detector.diffusion, config=detector.config)
    if frozen:
        fingerprint = fingerprint | {"diffusion model": frozen}
    masks = any(transform.get("with_mask") for transform in config.train_pipeline)
    data = DetectionDataset(
        sources,
        categories,
        config.train_pipeline,
        masks=masks,
        keep_empty=detector.keep_empty,
    )
    images = {name: int((data.origin == number).sum()) for number, name in enumerate(data.sources)}
    log.info("images: %s", ", ".join(f"{count} of {name}" for name, count in images.items()))
    del sources

    output = Path(output)
    with WorkFolder(output.parent / "work", fingerprint) as work:
        loader = DataLoader(
            data,
            batch_sampler=batch_sampler(data, settings, config.batch_size, rank=rank, world_size=world_size),
            collate_fn=pseudo_collate,
            num_workers=workers,
            worker_init_fn=ignore_signals,
        )
        masks_missing = masks and not data.masked.all()
        model = initial_model(
            config,
            detector,
            settings.seed,
            masks_missing=masks_missing,
            background_ignored=data.background_ignored,
            categories_missing=data.categories_missing,
        )
        if frozen:
            model.backbone.keep_features(work.path / "features")
        model = _on_device(model, device, world_size)
        loop = functools.partial(
            TrainingLoop,
            max_iters=config.max_iters,
            seed=settings.seed,
            work=work,
            stop=stop,
        )
        runner = make_runner(config, model, loader, loop, output.parent / "work" / "mmengine")
        runner.train()
        loop: TrainingLoop = runner.train_loop
        if not loop.finished:
            return Trained(False, loop.iter)
        facts = {
            "images": images,
            "iterations": loop.iter,
            "batch_size": config.batch_size,
            "losses": {name: round(value, 5) for name, value in loop.losses.latest().items()},
            "training_seconds": round(loop.seconds, 1),
            "processes": world_size,
            "threads": torch.get_num_threads(),
            "operators": mmcv_ext.description(device),
        }
        if processes.is_first():
            save_weights(
                output,
                loop.state()["state_dict"],
                model=config.model.to_dict(),
                test_pipeline=Config(dict(steps=config.test_pipeline)).to_dict()["steps"],
                categories=categories,
            )
            loop.losses.write(output.parent)
            work.remove()
    processes.wait()
    return Trained(True, loop.iter, facts)


# --- parts ----------------------------------------------------------------------------------------


def load_sources(
    dataset: Dataset,
    synthetic: list[Path],
    *,
    real: bool = True,
    detector: DetectorSettings | None = None,
) -> tuple[list[Source], list[dict]]:
    """The real training images, then each synthetic set; and the categories, ordered by id.

    Args:
        real: whether the real images are among the sources.
        detector: says how complete the labels are; None: as the sets themselves say.

    Raises:
        InputError: a file is missing or malformed, or a synthetic set was drawn from another training split.
    """
    train = dataset.train
    annotations = train.labels()
    categories = sorted(annotations.categories, key=lambda category: category["id"])
    given = detector.labels if detector else LabelSettings()
    sources = []
    if real:
        complete = given.real or Completeness()
        sources.append(
            Source(dataset.name, train.annotations_path, annotations, train.images, completeness=complete)
        )
    for path in map(Path, synthetic):
        drawn, images = open_synthetic(path)
        _require_split(drawn, path, train)
        says = given.synthetic or _says(drawn, path)
        if detector and detector.ignore_background:
            says = says.model_copy(update={"background": "ignore"})
        sources.append(Source(path.parent.name, path, drawn, images, synthetic=True, completeness=says))
    return sources, categories


def _says(drawn: LabelSet, path: Path) -> Completeness:
    """How complete the labels of a synthetic set are, as its annotation file declares."""
    return parse_settings(Completeness, drawn.info.get("labels", {}), source=f"{path}: info.labels")


def _require_split(drawn: LabelSet, path: Path, train: Split) -> None:
    """Images generated from references outside the training split would leak data that must stay unseen."""
    training_hash = drawn.info.get("split")  # the name in stored sets
    if training_hash is None and drawn.any_image_has("reference_image_id"):
        raise InputError(f"{path}: does not say of which split its references are; draw the set again")
    if training_hash not in (None, train.hash):
        raise InputError(
            f"{path}: drawn from other training images than {train.annotations_path}; draw the set again"
        )


def batch_sampler(
    data: DetectionDataset, settings: TrainSettings, batch_size: int, *, rank: int = 0, world_size: int = 1
) -> BatchSampler | InterleavedSampler:
    """The order in which images are trained on, as the settings of the detector say.

    Raises:
        InputError: no real image can be shown in the place of a synthetic one.
    """
    detector = settings.detector
    real = ~data.synthetic
    everything = np.ones(len(data), dtype=bool)
    factors = repeat_factors(
        data.contents, detector.repeat_threshold, counted=everything if detector.repeat_by == "all" else real
    )
    if detector.repeat_by == "each":
        synthetic = repeat_factors(data.contents, detector.repeat_threshold, counted=~real)
        factors[~real] = synthetic[~real]
    groups, probabilities = [everything], None
    if detector.interleave:
        groups = [data.origin == source for source in np.unique(data.origin)]
    elif detector.synthetic_batches is not None and real.any() and not real.all():
        groups = [real, ~real]
        probabilities = [1 - detector.synthetic_batches, detector.synthetic_batches]
    pools = [
        Pool(group.nonzero()[0], factors[group], seed_for(settings.seed, "images", number))
        for number, group in enumerate(groups)
    ]
    if detector.interleave:
        return InterleavedSampler(pools, batch_size, settings.seed, rank=rank, world_size=world_size)
    try:
        places = replayed(data.contents, data.synthetic) if detector.replay_real else None
    except ValueError as error:
        raise InputError(f"replay_real: {error}") from None
    return BatchSampler(
        pools,
        batch_size,
        settings.seed,
        probabilities=probabilities,
        per_image=detector.synthetic_mixing == "image",
        places=places,
        rank=rank,
        world_size=world_size,
    )


def initial_model(
    config: Config,
    detector: DetectorSettings,
    seed: int,
    *,
    masks_missing: bool = False,
    background_ignored: bool = False,
    categories_missing: bool = False,
) -> nn.Module:
    """The detector before its first iteration, on the CPU.

    Args:
        masks_missing: whether masks are learned, but some images have none.
        background_ignored: whether background of some images has no loss, whatever the settings say.
        categories_missing: whether some images have labels of some categories only.

    Raises:
        InputError: the backbone asks for pretrained weights and the settings name none, or unusable ones; a
            part of the detector does not support what the settings ask.
    """
    model = config.model.to_dict()
    samples_apart = detector.ignore_background or background_ignored or categories_missing
    if samples_apart or masks_missing:
        model = make_aware(
            model,
            ignore_background=detector.ignore_background or background_ignored,
            categories_missing=categories_missing,
            fill_with_positives=detector.fill_with_positives,
            normalise_by=detector.normalise_by,
            source=detector.config,
        )
    backbone = model.get("backbone") or {}
    pretrained = (backbone.get("init_cfg") or {}).get("type") == "Pretrained"
    if pretrained:
        backbone["init_cfg"] = None  # a name of mmengine's, or a pickle from the net
    if detector.backbone_weights is None and (pretrained or backbone.get("frozen_stages", -1) >= 0):
        raise InputError(
            f"{detector.config}: the backbone starts from pretrained weights; name a file of them in "
            "backbone_weights"
        )
    seed_everything(seed_for(seed, "initial weights"))
    built = build_model(model)
    if samples_apart:
        require_aware(built, detector.config)
    built.init_weights()
    if detector.backbone_weights is not None:
        load_backbone(built, detector.backbone_weights)
    return built


def _on_device(model: nn.Module, device: str, world_size: int) -> nn.Module:
    from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm

    if device == "cpu":
        # Convolutions of PyTorch's CPU library want channels innermost; else each one reorders what it reads.
        model = model.to(memory_format=torch.channels_last)
    if world_size == 1:
        return revert_sync_batchnorm(model).to(device)
    devices = [int(os.environ["LOCAL_RANK"])] if device == "cuda" else None
    return MMDistributedDataParallel(model.to(device), device_ids=devices, broadcast_buffers=False)
