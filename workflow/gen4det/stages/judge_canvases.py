"""Judge what generators of the miniature draw for data engines, by a detector trained on renderings alone.

`render` writes the data set that the detector is trained on (by the stage `train`). `judge` writes <output>,
JSON, and <output>.record.json: the share of objects on kept canvases that the detector calls by their label,
with box and mask IoU, for each category, beside the same canvases rendered; single objects as they are drawn
and at the sizes of the detection set, and how different they are from each other; objects that the inpainting
model painted into boxes, one and all of a scene at once. Whatever is not given is left out.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm, trange

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, seed_for, write_json
from gen4det.data.annotations import index_annotations
from gen4det.data.images import ImageStore, ShardWriter, encode_image
from gen4det.data.manifests import read_manifest
from gen4det.data.shards import image_folder, load_shard
from gen4det.miniature.calls import Call, by_category, call_labels
from gen4det.miniature.canvas_judge_settings import CanvasJudge
from gen4det.miniature.canvases import render_canvas
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.renderer import Placed
from gen4det.miniature.renderings import (
    at_detection_size,
    label_of,
    ordinary_scene,
    render_for_judge,
    render_singles,
)
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import torch_device

NAMES = {category.id: category.name for category in CATEGORIES}
GROUPS = {category.id: category.frequency for category in CATEGORIES}
ANSWERS = 50
"""Detections of an image that are looked at, the best ones."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("part", choices=("render", "judge"))
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="dataset.json or judgement"
    )
    parser.add_argument("--detector", type=Path, metavar="FILE", help="trained on what `render` wrote")
    parser.add_argument(
        "--shards", nargs="*", default=[], type=Path, metavar="FILE", help="labels of drawn shards"
    )
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="what the shards were drawn from")
    parser.add_argument("--diffusion", type=Path, metavar="FOLDER", help="text-to-image pipeline")
    parser.add_argument("--inpainting", type=Path, metavar="FOLDER", help="grounded inpainting pipeline")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args()
    settings = stage_settings(args, CanvasJudge)
    inputs = [path for path in (args.detector, args.manifest, *args.shards) if path is not None]
    for path in inputs:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    record = RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=(__spec__.name,),
        seeds={"judge": settings.seed},
        inputs=tuple(inputs),
    )
    with record:
        if args.part == "render":
            render_for_judge(settings, args.output)
            return
        if args.detector is None:
            raise InputError("judge: give the detector's weights, --detector FILE")
        judge = Judge(settings, args.detector, args.output.with_suffix(""), torch_device(args.device))
        judgement = {}
        if args.shards:
            judgement["canvases"] = judge.canvases(args.shards)
        if args.manifest:
            rows = read_manifest(args.manifest)
            if all("regions" in row for row in rows):  # canvases; other engines paint into real images
                judgement["rendered_canvases"] = judge.rendered_canvases(rows)
        if args.diffusion:
            judgement["singles"], judgement["diversity"] = judge.singles(args.diffusion)
        if args.inpainting and settings.repainted_scenes:
            judgement["inpainting"] = judge.inpainting(args.inpainting)
        write_json(args.output, judgement, indent=1)


class Judge:
    """Shows pictures to the detector.

    Args:
        detector: weights.
        folder: where pictures that are not there yet are kept, to be looked at.
        device: of all models.
    """

    def __init__(self, settings: CanvasJudge, detector: Path, folder: Path, device: str):
        self.settings, self.detector, self.folder, self.device = settings, detector, folder, device

    def canvases(self, shards: Sequence[Path]) -> dict:
        """What is called by its label of what an engine drew and kept."""
        calls, drawn, kept = [], 0, 0
        for path in shards:
            labels = load_shard(path)
            of_image = index_annotations(labels)
            records = [record for record in labels["images"] if of_image[record["id"]]]
            drawn, kept = drawn + len(labels["images"]), kept + len(records)
            detections = self._detect(ImageStore(image_folder(path, labels)), records, masks=True)
            calls += self._ask([of_image[record["id"]] for record in records], detections)
        return {"drawn": drawn, "kept": kept} | by_category(calls, NAMES, GROUPS)

    def rendered_canvases(self, rows: list[dict]) -> dict:
        """The same of these canvases as the renderer draws them: the most that can be reached."""
        scenes = [
            render_canvas(row["regions"], row["height"], row["width"], self._seed("canvas", row["seed"]))
            for row in rows
        ]
        labels = [[label_of(placed) for placed in scene.objects] for scene in scenes]
        calls = self._ask(
            labels, self._show("rendered_canvases", [scene.image for scene in scenes], masks=True)
        )
        return by_category(calls, NAMES, GROUPS)

    def singles(self, diffusion: Path) -> tuple[dict, dict]:
        """Pictures of one object each: what they are called, and how much those of one prompt differ.

        Returns:
            For drawn and rendered ones the calls at the size that the model draws and at the sizes of the
            detection set; and for each category the mean distance between two drawn ones over that between
            rendered ones.
        """
        from gen4det.miniature.single_samples import SingleSampler

        sampler = SingleSampler(diffusion, self.settings, self.device)
        found, spread = {}, {}
        for origin in ("drawn", "rendered"):
            pictures = {
                category.id: sampler(category)
                if origin == "drawn"
                else render_singles(self.settings, category, sampler.side)
                for category in tqdm(CATEGORIES, desc=f"single objects, {origin}", unit="category")
            }
            found[origin] = {
                "as_drawn": self._call_singles(f"{origin}_singles", pictures, small=False),
                "at_detection_sizes": self._call_singles(f"{origin}_small", pictures, small=True),
            }
            spread[origin] = {NAMES[key]: self._spread(images) for key, images in pictures.items()}
        ratio = {name: round(value / spread["rendered"][name], 4) for name, value in spread["drawn"].items()}
        return found, {"mean": round(float(np.mean(list(ratio.values()))), 4), "per_category": ratio}

    def _call_singles(self, name: str, pictures: dict[int, np.ndarray], small: bool) -> dict:
        images, labels = [], []
        for key, of_category in pictures.items():
            for index, image in enumerate(of_category):
                box = [0.0, 0.0, float(image.shape[1]), float(image.shape[0])]
                if small:
                    seed = self._seed("size", NAMES[key], index)
                    image, box = at_detection_size(self.settings, image, seed)
                images.append(image)
                labels.append([{"category_id": key, "bbox": box}])
        calls = self._ask(labels, self._show(name, images))
        shares = by_category(calls, NAMES, GROUPS)
        return _shares(shares)  # the box of a picture is not that of its object

    def inpainting(self, model: Path) -> dict:
        """Objects painted into boxes of rendered scenes: one alone, all in one pass, and as first rendered.

        `box_iou` is that of the asked box and what the detector finds in it.
        """
        from gen4det.miniature.judge import inpainting_pipeline, repaint

        pipeline = inpainting_pipeline(model, self.device)
        shown: dict[str, tuple[list, list]] = {"originals": ([], []), "alone": ([], []), "together": ([], [])}
        for index in trange(self.settings.repainted_scenes, desc="repaint", unit="scene"):
            first = CATEGORIES[index % len(CATEGORIES)]
            scene = ordinary_scene(self.settings, "repaint", index, first)
            objects = [placed for placed in reversed(scene.objects)]
            seed = self._seed("paint", index)
            for name, asked in (("originals", objects), ("alone", objects[:1]), ("together", objects)):
                image = scene.image if name == "originals" else repaint(pipeline, scene.image, asked, seed)
                shown[name][0].append(image)
                shown[name][1].append([_box_only(placed) for placed in asked])
        return {
            name: by_category(self._ask(labels, self._show(f"inpainting_{name}", images)), NAMES, GROUPS)
            for name, (images, labels) in shown.items()
        }

    def _seed(self, *names: str | int) -> int:
        return seed_for(self.settings.seed, *names)

    # --- the detector -----------------------------------------------------------------------------------

    def _show(self, name: str, images: Sequence[np.ndarray], *, masks: bool = False) -> list[list[dict]]:
        """Detections in pictures, uint8 (H, W, 3), which are kept as <folder>/<name>.zip."""
        archive = self.folder / f"{name}.zip"
        records = []
        with ShardWriter(archive) as writer:
            for index, image in enumerate(images):
                height, width = image.shape[:2]
                records.append(
                    {"id": index, "file_name": f"{index:06d}.png", "height": height, "width": width}
                )
                writer.add(records[-1]["file_name"], encode_image(image, "png"))
        return self._detect(ImageStore(archive), records, masks=masks)

    def _detect(self, images: ImageStore, records: list[dict], *, masks: bool) -> list[list[dict]]:
        from gen4det.detection.inference import predict

        found: dict[int, list[dict]] = {record["id"]: [] for record in records}
        options = {"device": self.device, "max_per_image": ANSWERS, "masks": masks}
        for detection in predict(self.detector, images, records, **options):
            found[detection["image_id"]].append(detection)
        return [found[record["id"]] for record in records]

    def _ask(self, labels: Sequence[Sequence[dict]], detections: Sequence[Sequence[dict]]) -> list[Call]:
        return [
            call
            for of_image, found in zip(labels, detections, strict=True)
            for call in call_labels(of_image, found, self.settings.min_score)
        ]

    def _spread(self, images: np.ndarray) -> float:
        """Mean distance between two pictures, in the last features of the detector's backbone."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            features = self._backbone(pixels)[-1].mean((2, 3))
            return torch.pdist(features).mean().item()

    @cached_property
    def _backbone(self):
        from gen4det.detection.weights import load_detector

        return load_detector(self.detector, device=self.device).model.backbone


def _box_only(placed: Placed) -> dict:
    """A label whose outline the inpainting model was not told."""
    return {key: value for key, value in label_of(placed).items() if key in ("category_id", "bbox")}


def _shares(found: dict) -> dict:
    """What is called by its name, without IoUs."""
    if "called" in found:
        return {key: found[key] for key in ("objects", "called", "instead")}
    return {key: _shares(value) for key, value in found.items()}


if __name__ == "__main__":
    run(main)
