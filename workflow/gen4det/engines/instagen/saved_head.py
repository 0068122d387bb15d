"""A fitted head in a folder: config.json, model.safetensors (the student), perhaps teacher.safetensors.

The U-Net is not in it. Its hash is, and the head is refused on features of another one.
"""

from pathlib import Path

from safetensors.torch import load_file, save_file

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import write_json
from gen4det.detection.grounding_head import GroundingHead
from gen4det.detection.grounding_settings import GroundingShape
from gen4det.engines.instagen.feature_bank import FeatureBank
from gen4det.engines.instagen.teacher import Teacher

CONFIG, STUDENT, TEACHER = "config.json", "model.safetensors", "teacher.safetensors"


def save_head(folder: Path, head: GroundingHead, bank: FeatureBank, teacher: Teacher | None) -> None:
    """Write a new folder."""
    folder.mkdir()
    save_file({name: it.contiguous().cpu() for name, it in head.state_dict().items()}, folder / STUDENT)
    if teacher is not None:
        weights = {name: it.contiguous().cpu() for name, it in teacher.head.state_dict().items()}
        save_file(weights, folder / TEACHER)
    about = {
        "shape": head.shape.model_dump(mode="json"),
        "channels": head.channels,
        "text_channels": head.text_channels,
        "diffusion_model": bank.fingerprint,
    }
    write_json(folder / CONFIG, about, indent=1)


def load_head(folder: Path, bank: FeatureBank) -> GroundingHead:
    """The student, frozen, on the device of the features.

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
    head.load_state_dict(load_file(folder / STUDENT))
    return head.requires_grad_(False).eval().to(bank.device)
