"""Train one part of the miniature's foundation models, or judge or install them.

Parts, in their order: corpus, autoencoder, diffusion, inpainting, clip, aesthetic, backbone, judge, install.
Training resumes from its last checkpoint; on a GPU the same command takes minutes.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from gen4det.core.provenance import RunRecord, atomic_write, file_hash
from gen4det.detection.detectors import MODELS, load_config
from gen4det.filters.aesthetic import AestheticHead
from gen4det.filters.clip import ImageEncoder
from gen4det.miniature.aesthetic import train_aesthetic
from gen4det.miniature.autoencoder import train_autoencoder
from gen4det.miniature.card import write_card
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.classifier import Classifier, all_category_ids, train_classifier
from gen4det.miniature.clip import train_clip
from gen4det.miniature.corpus import build_corpus
from gen4det.miniature.diffusion import train_diffusion
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.inpainting import train_inpainting
from gen4det.miniature.judge import judge
from gen4det.miniature.training import loss_curve
from gen4det.stages._cli import run, stage_parser, stage_settings

FOLDERS = {
    "diffusion": "stable-diffusion",
    "inpainting": "gligen-inpainting",
    "clip": "clip",
    "aesthetic": "aesthetic",
    "backbone": "backbone",
}
DETECTOR = "config/detectors/miniature_mask_rcnn.py"
PARTS = (
    "corpus",
    "autoencoder",
    "diffusion",
    "inpainting",
    "clip",
    "aesthetic",
    "backbone",
    "judge",
    "install",
)


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder of all parts, results/.../foundation"
    )
    parser.add_argument(
        "--resources",
        type=Path,
        default=Path("resources/miniature"),
        help="where `install` copies the models (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args()
    settings = stage_settings(args, FoundationTraining)
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    folder, part = args.folder, args.part
    corpus = folder / "corpus"
    work = folder / part / "work"
    model = folder / "models" / FOLDERS.get(part, part)
    autoencoder, diffusion = folder / "models" / "autoencoder", folder / "models" / FOLDERS["diffusion"]
    record = RunRecord(
        corpus if part == "corpus" else folder / part / "result", settings=settings.model_dump(),
        code=("gen4det.stages.foundation",), seeds={"world": settings.seed},
    )  # fmt: skip
    with record:
        if part == "corpus":
            build_corpus(settings, corpus)
        elif part == "autoencoder":
            train_autoencoder(settings, corpus, model, work, device)
        elif part == "diffusion":
            train_diffusion(settings, corpus, autoencoder, model, work, device)
        elif part == "inpainting":
            train_inpainting(settings, diffusion, model, work, device)
        elif part == "clip":
            train_clip(settings, corpus, diffusion, model, work, device)
        elif part == "aesthetic":
            clip = folder / "models" / FOLDERS["clip"]
            record.add(heldout=fit_aesthetic(settings, clip, model, work, device))
        elif part == "backbone":
            accuracy = train_backbone(settings, corpus, model / "model.safetensors", work, device)
            record.add(heldout_accuracy=accuracy)
        elif part == "judge":
            inpainting = folder / "models" / FOLDERS["inpainting"]
            judge(settings, corpus, diffusion, inpainting, folder / "judge", work, device)
        elif part == "install":
            install(settings, folder, args.resources)
        if (work / "loss.csv").exists():
            loss_curve(work, folder / part / "loss.png", part)


def fit_aesthetic(
    settings: FoundationTraining, clip: Path, output: Path, work: Path, device: str
) -> dict[str, object]:
    """Train the aesthetic predictor on the miniature's CLIP; figures on held-out pictures."""
    encoder = ImageEncoder(str(clip), device=device)
    torch.manual_seed(settings.seed)
    head = AestheticHead(encoder.width)

    def embed(images: list[np.ndarray]) -> torch.Tensor:
        return encoder.embed(np.stack([encoder.preprocess(image) for image in images]))

    digest = file_hash(clip / "model.safetensors")
    return train_aesthetic(settings, head, embed, output, work, device, clip=digest)


def train_backbone(
    settings: FoundationTraining, corpus: Path, output: Path, work: Path, device: str
) -> float:
    """Pretrain the miniature detector's ResNet on classifying the categories that are not rare.

    It stands where ImageNet weights stand at full scale. Rare categories are left out, so that nothing
    but the detection set and the synthetic data teaches the detector about them.
    """
    torch.manual_seed(settings.seed)
    backbone = MODELS.build(load_config(DETECTOR, classes=len(CATEGORIES)).model.backbone)
    width = backbone(torch.zeros(1, 3, 64, 64))[-1].shape[1]
    model = Classifier(backbone, width, all_category_ids(rare=False))
    accuracy = train_classifier(model, settings, corpus, work, settings.backbone_steps, device)
    with atomic_write(output) as temporary:
        state = {name: value.half() if value.is_floating_point() else value
                 for name, value in backbone.state_dict().items()}  # fmt: skip
        save_file({name: value.contiguous().cpu() for name, value in state.items()}, temporary)
    return accuracy


def install(settings: FoundationTraining, folder: Path, resources: Path) -> None:
    """Copy the models to the folder that ships with the repository, with a model card."""
    for name in FOLDERS.values():
        with atomic_write(resources / name) as temporary:
            shutil.copytree(folder / "models" / name, temporary, symlinks=True)
    pictures = {
        "samples.png": folder / "judge" / "samples.png",
        "reconstructions.png": folder / "judge" / "reconstructions.png",
        "inpainting.png": folder / "judge" / "inpainting.png",
        "aesthetic.png": folder / "aesthetic" / "scores.png",
        **{f"loss_{part}.png": folder / part / "loss.png" for part in
           ("autoencoder", "diffusion", "inpainting", "clip", "aesthetic", "backbone")},
    }  # fmt: skip
    for name, source in pictures.items():
        shutil.copyfile(source, resources / name)
    records = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/result.record.json")}
    judgement = json.loads((folder / "judge" / "judgement.json").read_text())
    write_card(resources / "README.md", settings, judgement, records)


if __name__ == "__main__":
    run(main)
