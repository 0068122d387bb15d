"""Weights files of detectors: safetensors with the classes and the config in them. No pickle."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from gen4det.core.errors import InputError, RefusedInput
from gen4det.core.provenance import atomic_write
from gen4det.detection.detectors import build_model, from_json, limit_detections, to_json

_KEY = "gen4det.detector"
_REFUSED = "gen4det.refused"


@dataclass(frozen=True)
class Detector:
    """A trained detector."""

    model: nn.Module
    """In evaluation mode."""
    categories: list[dict]
    """[{"id", "name"}, ...]; label k of the model is categories[k]."""
    test_pipeline: list[dict]
    """Transforms of an image that is to be predicted, in mmdet's words."""


def save_weights(
    path: str | Path, state: dict[str, torch.Tensor], *, model: dict, test_pipeline: list, categories: list
) -> None:
    """Write a detector atomically; equal weights give equal bytes.

    Args:
        state: the model's state dictionary.
        model, test_pipeline: of the detector's config.
        categories: in the order of labels.
    """
    model = dict(to_json(model))
    description = {
        "categories": [{"id": category["id"], "name": category["name"]} for category in categories],
        "model": _without_initialisation(model),
        "test_pipeline": to_json(list(test_pipeline)),
    }
    # Clones, because safetensors refuses parameters that share memory, as some heads' do.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(description, sort_keys=True)})
        temporary.chmod(0o644)  # safetensors lets nobody else read


def save_refusal(path: str | Path, reason: str) -> None:
    """Write, in place of a detector, that there is none and why: a file without tensors."""
    with atomic_write(path) as temporary:
        save_file({}, temporary, metadata={_REFUSED: reason})
        temporary.chmod(0o644)


def _without_initialisation(value):
    """The config without `init_cfg`: a trained model has no use for other people's files."""
    if isinstance(value, dict):
        return {key: _without_initialisation(item) for key, item in value.items() if key != "init_cfg"}
    if isinstance(value, list):
        return [_without_initialisation(item) for item in value]
    return value


def detector_categories(path: str | Path) -> list[dict]:
    """Categories that a detector knows, [{"id", "name"}, ...]; its tensors are not read.

    Raises:
        RefusedInput: the detector could not be trained.
        InputError: missing, damaged, or not written by `save_weights`.
    """
    with _opened(path) as (description, _):
        return description["categories"]


def load_detector(path: str | Path, *, device: str = "cpu", max_per_image: int | None = None) -> Detector:
    """Read a detector.

    Args:
        max_per_image: detections it returns per image at most; None: as its config says.

    Raises:
        InputError: missing, damaged, or not written by `save_weights`.
    """
    with _opened(path) as (description, file):
        state = {name: file.get_tensor(name) for name in file.keys()}
    model = build_model(limit_detections(from_json(description["model"]), max_per_image))
    model.load_state_dict(state)
    return Detector(
        model.to(device).eval(), description["categories"], from_json(description["test_pipeline"])
    )


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[tuple[dict, safe_open]]:
    """What the file says of the detector, and the file itself."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _REFUSED in metadata:
                raise RefusedInput(path, metadata[_REFUSED])
            if _KEY not in metadata:
                raise InputError(f"{path}: weights of something else; expected those of a trained detector")
            yield json.loads(metadata[_KEY]), file
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not readable as safetensors: {error}") from error
