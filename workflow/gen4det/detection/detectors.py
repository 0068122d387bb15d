"""Detectors: mmengine config files, the models they describe, and how both are stored in a weights file.

Importing this module makes mmdet usable, with or without mmcv's compiled operators.
"""

import contextlib
import importlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from gen4det.core.errors import InputError
from gen4det.data.model_settings import ModelSource
from gen4det.detection import mmcv_ext
from gen4det.detection.stand_ins import standing_in

mmcv_ext.install()  # before anything imports mmcv.ops
# mmdet prints which optional parts it lacks. Of transformers it takes language models, and mmengine one
# optimizer; of imagecorruptions an augmentation, of imgaug those of lanes, of matplotlib drawings of tracks.
_BERT = "transformers.models.bert.modeling_bert"
_LANGUAGE = ("transformers", "transformers.modeling_utils", "transformers.models", "transformers.models.bert")
_LANES = ("imgaug", "imgaug.augmenters", "imgaug.augmentables")
_LINES = ("imgaug.augmentables.lines", "imgaug.augmentables.segmaps")
_TRACKS = ("matplotlib", "matplotlib.colors", "matplotlib.patches", "matplotlib.pyplot")
with (
    contextlib.redirect_stdout(io.StringIO()),
    standing_in(*_LANGUAGE, _BERT, "imagecorruptions", *_LANES, *_LINES, *_TRACKS),
):
    import mmdet.datasets.transforms  # noqa: F401  (registers the transforms)
    import mmdet.models  # noqa: F401  (registers the models)
from mmdet.registry import MODELS, TRANSFORMS  # noqa: E402

from gen4det.detection import sigmoid_loss, sparing  # noqa: E402, F401  (register parts)

MMLogger.get_instance("gen4det", log_level="WARNING")  # else every initialised parameter is a line

_MODULES = {"FrozenDiffusion": "gen4det.detection.backbones"}  # parts of our own that few detectors have
REQUIRED_KEYS = ("model", "train_pipeline", "test_pipeline", "batch_size", "max_iters", "optim_wrapper")
_SCHEDULE_KEYS = ("begin", "end", "T_max", "milestones", "total_iters")


# --- config files -------------------------------------------------------------------------------


def load_config(
    path: str | Path, *, classes: int, iterations: int | None = None, schedule: float = 1.0
) -> Config:
    """Read a detector's config file and fit it to the data.

    A config file says `model`, `train_pipeline`, `test_pipeline`, `batch_size` (over all processes),
    `max_iters`, `optim_wrapper` and, optionally, `param_scheduler` (by iteration) and `custom_hooks`, all in
    the words of mmdet 3. It may build on mmdet's own files: `_base_ = "mmdet::lvis/..."`.

    Args:
        classes: number of categories; replaces every `num_classes` of the model.
        iterations: replaces `max_iters` and stretches the schedule; None: as written.
        schedule: multiple of that length.

    Raises:
        InputError: the file is missing, broken, or lacks one of the above; `iterations` are too few for the
            schedule.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such detector config")
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a config file is Python: anything may go wrong in it
        raise InputError(f"{path}: cannot be read: {type(error).__name__}: {_first_line(error)}") from error
    missing = [key for key in REQUIRED_KEYS if key not in config]
    if missing:
        raise InputError(f"{path}: no {missing[0]}; a detector config says {', '.join(REQUIRED_KEYS)}")
    _replace(config.model, "num_classes", classes)
    _require_iterations(config, path)
    length = max(1, round((iterations or config.max_iters) * schedule))
    if length != config.max_iters:
        _stretch(config, length / config.max_iters)
        config.max_iters = length
        _require_room(config, path)
    return config


def _first_line(error: Exception) -> str:
    return (str(error) or "no message").splitlines()[0]


def _dictionaries(value: Any) -> Iterator[dict]:
    """All dictionaries inside a piece of config, the outermost first."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _dictionaries(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _dictionaries(item)


def _replace(value: Any, key: str, new: Any) -> None:
    for dictionary in _dictionaries(value):
        if key in dictionary:
            dictionary[key] = new


def _schedulers(config: Config) -> list[dict]:
    schedulers = config.get("param_scheduler") or []
    return schedulers if isinstance(schedulers, list) else [schedulers]


def _require_iterations(config: Config, path: Path) -> None:
    for scheduler in _schedulers(config):
        if scheduler.get("by_epoch", True):
            raise InputError(
                f"{path}: param_scheduler: {scheduler.get('type')} counts epochs; set by_epoch=False and "
                "give its times in iterations"
            )


def _require_room(config: Config, path: Path) -> None:
    """Each scheduler needs an iteration of its own, which a very short training may not have."""
    for scheduler in _schedulers(config):
        if scheduler.get("begin", 0) >= scheduler.get("end", float("inf")):
            raise InputError(
                f"{path}: too few iterations ({config.max_iters}) for its param_scheduler "
                f"({scheduler.get('type')} would begin at its end); ask for more"
            )


def _stretch(config: Config, factor: float) -> None:
    def scaled(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [scaled(item) for item in value]
        return max(1, round(value * factor)) if value else value

    for scheduler in _schedulers(config):
        for key in _SCHEDULE_KEYS:
            if key in scheduler:
                scheduler[key] = scaled(scheduler[key])


# --- models ---------------------------------------------------------------------------------------


def build_model(model: dict) -> nn.Module:
    """A detector of mmdet, on the CPU, with its initial weights not yet drawn.

    Raises:
        InputError: a part that mmdet has not, or that cannot be made as the config says.
    """
    init_default_scope("mmdet")
    for part in _dictionaries(model):
        if part.get("type") in _MODULES:
            importlib.import_module(_MODULES[part["type"]])
    with _buildable("detector config: model"):
        return MODELS.build(Config(model))


@contextlib.contextmanager
def _buildable(where: str) -> Iterator[None]:
    """Name the place in a config whose part cannot be made."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever the constructor of some part of mmdet raises
        said = str(error.args[0]) if isinstance(error, KeyError) else _first_line(error)
        raise InputError(f"{where}: {said.partition('. Please check')[0]}") from error


def fit_diffusion(model: dict, source: ModelSource | None, *, config: str) -> str | None:
    """Fit a detector to the diffusion model that is its backbone, where it has one.

    Args:
        model: of the config; where the diffusion model lies, and its widths, are filled in.
        source: the diffusion model.
        config: name of the config file, for errors.

    Returns:
        Hash of the diffusion model's weights; None for every other detector.

    Raises:
        InputError: a model is named and the backbone is none, or the other way round; the model is unusable.
    """
    kind = (model.get("backbone") or {}).get("type")
    if (kind in _MODULES) != (source is not None):
        problem = "`diffusion` has no meaning for it" if source else "name its model in `diffusion`"
        raise InputError(f"{config}: backbone {kind}: {problem}")
    if source is None:
        return None
    return importlib.import_module(_MODULES[kind]).fit_backbone(model, source).fingerprint


def build_pipeline(
    transforms: list[dict], *, where: str = "detector config: pipeline"
) -> Callable[[dict], dict | None]:
    """Transforms one after the other; a transform that returns None (no object left) ends it with None.

    Args:
        where: of a config they come from, for errors.

    Raises:
        InputError: a transform that mmdet has not, or that cannot be made as the config says.
    """
    init_default_scope("mmdet")
    steps = []
    for transform in transforms:
        with _buildable(f"{where}: {transform.get('type')}"):
            steps.append(TRANSFORMS.build(dict(transform)))

    def apply(results: dict | None) -> dict | None:
        for step in steps:
            results = step(results)
            if results is None:
                return None
        return results

    return apply


def limit_detections(model: dict, max_per_image: int | None) -> dict:
    """A copy of a model's config that returns at most this many detections per image.

    Args:
        max_per_image: None: as many as the config says.
    """
    model = Config(model).to_dict()
    test = model.get("test_cfg") or {}
    final = test.get("rcnn", test)  # of two stages the second one answers
    for stage in final if isinstance(final, list) else [final]:
        limit = stage.get("max_per_img") if max_per_image is None else max_per_image
        if "num_queries" in model:  # a query answers once for each class, and more cannot be chosen
            answers = model["num_queries"] * model["bbox_head"]["num_classes"]
            limit = answers if limit is None else min(limit, answers)
        if limit is not None:
            stage["max_per_img"] = limit
    return model


def load_backbone(model: nn.Module, path: str | Path) -> None:
    """Start the backbone from pretrained weights.

    Args:
        path: `.safetensors`, or a torch file of plain tensors. Names are those of the backbone, with or
            without the prefix "backbone."; what a classifier has beyond (`fc`, `head`) is left out.

    Raises:
        InputError: missing file, or weights of another architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of backbone weights")
    found = {name.removeprefix("backbone."): value for name, value in _read_tensors(path).items()}
    wanted = model.backbone.state_dict()
    weights = {name: found[name] for name in wanted if name in found}
    missing = [name for name in wanted if name not in weights and not name.endswith("num_batches_tracked")]
    if missing:
        raise InputError(f"{path}: not the weights of this backbone: no {missing[0]}")
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            raise InputError(
                f"{path}: not the weights of this backbone: {name} is {tuple(value.shape)}, "
                f"the config asks for {tuple(wanted[name].shape)}"
            )
    model.backbone.load_state_dict(weights, strict=False)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return loaded.get("state_dict", loaded)
    except Exception as error:  # each format fails in its own way; all mean that the file is unusable
        raise InputError(f"{path}: not readable as weights: {_first_line(error)}") from error


# --- configs in weights files -----------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """A piece of config as JSON values; tuples, which mmcv tells from lists, are marked."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {"(tuple)": [to_json(item) for item in value]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    raise InputError(f"detector config: {value!r} cannot be stored beside the weights; use plain values")


def from_json(value: Any) -> Any:
    """Inverse of `to_json`."""
    if isinstance(value, dict):
        if list(value) == ["(tuple)"]:
            return tuple(from_json(item) for item in value["(tuple)"])
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value
