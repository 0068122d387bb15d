"""How good an image looks: the LAION aesthetic predictor on CLIP's image embeddings.

Schuhmann's improved aesthetic predictor (github.com/christophschuhmann/improved-aesthetic-predictor): a few
linear layers without activations between them, on the embedding scaled to unit length. Scores of the public
weights lie between 1 and 10.
"""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.core.provenance import content_hash, file_hash
from gen4det.data.images import ImageStore, image_name
from gen4det.filters.clip import CONFIG, PREPROCESSING, ImageEncoder

WEIGHTS = "model.safetensors"


class AestheticHead(nn.Module):
    """D-1024-128-64-16-1 with dropout 0.2, 0.2, 0.1; parameters have the names of the public weights.

    Args:
        width: D, length of an embedding; 768 for CLIP ViT-L/14.
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024), nn.Dropout(0.2),
            nn.Linear(1024, 128), nn.Dropout(0.2),
            nn.Linear(128, 64), nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of embeddings (N, D); their length does not matter."""
        return self.layers(nn.functional.normalize(embeddings, dim=-1))[:, 0]


def head_file(folder: str | Path) -> Path:
    """The file of weights in a folder: model.safetensors, else its only .pth file.

    Raises:
        InputError: no such folder, or no such file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected that of an aesthetic predictor")
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    found = sorted(folder.glob("*.pth"))
    if len(found) != 1:
        raise InputError(f"{folder}: expected {WEIGHTS} or one .pth file, found {len(found)} .pth files")
    return found[0]


def load_head(folder: str | Path, width: int) -> AestheticHead:
    """The predictor in a folder, in float32 and evaluation mode. Pickled weights are read as tensors only.

    Raises:
        InputError: damaged, something else, or for embeddings of another length than `width`.
    """
    file = head_file(folder)
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        found = state["layers.0.weight"].shape[1]
    except UnpicklingError as error:
        raise InputError(f"{file}: refused: holds more than tensors, or is no file of torch") from error
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise InputError(f"{file}: not an aesthetic predictor: {error!r:.200}") from error
    if found != width:
        raise InputError(f"{file}: for embeddings of length {found}; those of the CLIP model have {width}")
    head = AestheticHead(width)
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{file}: not an aesthetic predictor of 1024-128-64-16-1 units") from error
    return head.float().requires_grad_(False).eval()


class AestheticRater:
    """CLIP and predictor together: from images to scores.

    Args:
        clip: folder or hub id of a CLIP model.
        revision: of a hub id.
        head: folder of the predictor.

    Raises:
        InputError: either cannot be used, or they do not fit.
    """

    def __init__(self, clip: str, revision: str | None, head: str, device: str = "cpu"):
        self.encoder = ImageEncoder(clip, revision, device)
        self.head = load_head(head, self.encoder.width).to(device)
        self.models = models_digest(clip, revision, head)

    @torch.inference_mode()
    def rate(
        self, images: ImageStore, records: list[dict], *, batch_size: int = 64, workers: int = 0
    ) -> list[float]:
        """Score of each image.

        Args:
            records: image records of a COCO or LVIS file.
            batch_size: images at once; results depend on it no more than floating point does.
            workers: threads that read and scale images; 0 is one.

        Raises:
            InputError: an image is missing or damaged.
        """

        def load(record: dict) -> np.ndarray:
            return self.encoder.preprocess(images.image(image_name(record)))

        scores: list[float] = []
        with (
            ThreadPoolExecutor(max(1, workers)) as pool,
            progress(None, "rating", "image", total=len(records)) as bar,
        ):
            for pixels in _read_ahead(pool, load, records, batch_size):
                scores += self.head(self.encoder.embed(np.stack(pixels))).tolist()
                bar.update(len(pixels))
        return scores


def _read_ahead(pool: ThreadPoolExecutor, load, records: list[dict], size: int) -> Iterator[list[np.ndarray]]:
    """Loaded records, `size` at a time; the next ones are being read while a batch is used."""
    waiting: deque[list[Future]] = deque()
    for start in range(0, len(records), size):
        waiting.append([pool.submit(load, record) for record in records[start : start + size]])
        if len(waiting) > 1:
            yield [future.result() for future in waiting.popleft()]
    for futures in waiting:
        yield [future.result() for future in futures]


def models_digest(clip: str, revision: str | None, head: str) -> str:
    """Hash of CLIP's and the predictor's files; a model of the hub is named by id and revision."""
    folder = Path(clip)
    if folder.is_dir():
        names = {CONFIG, PREPROCESSING, *(file.name for file in folder.glob("*.safetensors"))}
        tower: list = [[name, file_hash(folder / name)] for name in sorted(names)]
    else:
        tower = [clip, revision]
    return content_hash([tower, file_hash(head_file(head))])


def calibration(scores: list[float]) -> dict:
    """What is stored of the scores of the real training images: the arithmetic mean and how they spread."""
    quantiles = np.quantile(scores, (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1))
    return {
        "images": len(scores),
        "mean": math.fsum(scores) / len(scores),
        "std": float(np.std(scores)),
        "quantiles": dict(zip(("0", "10", "25", "50", "75", "90", "100"), quantiles.tolist(), strict=True)),
    }
