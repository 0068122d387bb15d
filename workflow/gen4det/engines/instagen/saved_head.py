"""A fitted head in a folder: config.json, model.safetensors (the student), perhaps teacher.safetensors, and
perhaps the student after some epochs in epochs/<their number>.safetensors.

The U-Net is not in it. Its hash is, and the head is refused on features of another one.
"""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import atomic_write, write_json
from gen4det.detection.grounding_head import GroundingHead
from gen4det.detection.grounding_settings import GroundingShape
from gen4det.engines.instagen.feature_bank import FeatureBank
from gen4det.engines.instagen.teacher import Teacher

CONFIG, STUDENT, TEACHER = "config.json", "model.safetensors", "teacher.safetensors"
EPOCHS = "epochs"
"""Folder of the students before the last one."""


def save_head(
    folder: Path, head: GroundingHead, bank: FeatureBank, teacher: Teacher | None, epochs: Path | None = None
) -> None:
    """Write a new folder.

    Args:
        epochs: where `keep_student` has written, if it has.
    """
    folder.mkdir()
    _write(head, folder / STUDENT)
    if teacher is not None:
        _write(teacher.head, folder / TEACHER)
    for path in sorted(epochs.glob("*.safetensors")) if epochs is not None else ():
        (folder / EPOCHS).mkdir(exist_ok=True)
        shutil.copy(path, folder / EPOCHS)
    about = {
        "shape": head.shape.model_dump(mode="json"),
        "channels": head.channels,
        "text_channels": head.text_channels,
        "diffusion_model": bank.fingerprint,
    }
    write_json(folder / CONFIG, about, indent=1)


def keep_student(folder: Path, head: GroundingHead, epochs: int) -> None:
    """Write a student after so many epochs."""
    with atomic_write(folder / f"{epochs:03}.safetensors") as path:
        _write(head, path)


def kept_epochs(folder: Path) -> dict[int, Path]:
    """Weights of the students of a saved head by their number of epochs, rising, without the last one."""
    return {int(path.stem): path for path in sorted((folder / EPOCHS).glob("*.safetensors"))}


def _write(head: GroundingHead, path: Path) -> None:
    save_file({name: it.contiguous().cpu() for name, it in head.state_dict().items()}, path)


def load_head(folder: Path, bank: FeatureBank, weights: Path | None = None) -> GroundingHead:
    """A student, frozen, on the device of the features.

    Args:
        weights: one of `kept_epochs`; None: the last one.

    Raises:
        InputError: no head, or one fitted on features of another model.
    """
    about = read_json(folder / CONFIG, "a grounding head")
    if about.get("diffusion_model") != bank.fingerprint:
        raise InputError(
            f"{folder}: fitted on the features of another model (hash {about.get('diffusion_model')}; "
            f"this one is {bank.fingerprint}); fit the head on this generator's"
        )
    head = GroundingHead(about["channels"], about["text_channels"], GroundingShape(**about["shape"]))
    head.load_state_dict(load_file(weights or folder / STUDENT))
    return head.requires_grad_(False).eval().to(bank.device)
