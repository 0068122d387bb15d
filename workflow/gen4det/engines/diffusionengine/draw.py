"""DiffusionEngine: from manifest rows to images that were labelled while they were drawn."""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch

from gen4det.core.errors import InputError
from gen4det.core.provenance import file_hash
from gen4det.data.references import reference_image
from gen4det.detection.labelling import detect_in_features
from gen4det.detection.weights import load_detector
from gen4det.diffusion.frozen import load_frozen
from gen4det.diffusion.latents import decode
from gen4det.diffusion.noise import image_generator
from gen4det.diffusion.pipelines import load_text_to_image, set_precision
from gen4det.diffusion.text import TextStates
from gen4det.engines import base
from gen4det.engines.diffusionengine.redraw import redraw
from gen4det.engines.diffusionengine.settings import LAST_STEP, PIXELS, Settings
from gen4det.engines.diffusionengine.sizes import Frame, framed
from gen4det.evaluation.categories import match_categories

NO_AREA = "box without area"
"""Reason for rejecting a box that the border of the image has cut to nothing."""


class Drawer(base.Drawer):
    """DiffusionEngine (arXiv 2309.03893). Reads images of the training split, and no labels of theirs."""

    settings: Settings

    @property
    def unet_calls(self) -> int:
        """U-Net evaluations so far."""
        return self.machine.unet_calls if "machine" in vars(self) else 0

    @cached_property
    def machine(self) -> "Machine":
        """Loaded when the first batch is drawn."""
        return Machine(self)

    def synthesize(self, batches: Iterable[list[dict]]) -> Iterator[list[base.Generated]]:
        """See `base.Drawer.synthesize`. Images without a box are dropped, and counted as all that are."""
        store = self.dataset.train.images
        for rows in batches:
            parts = [
                framed(reference_image(store, row), Frame(tuple(row["resized"]), tuple(row["crop"])))
                for row in rows
            ]
            yield self.machine.draw(rows, np.stack(parts))


class Machine:
    """A text-to-image model, and the adapter that sits on it.

    Raises:
        InputError: a model or the adapter cannot be loaded; the adapter was trained on another model, sits on
            none, or has other categories.
    """

    def __init__(self, drawer: Drawer):
        settings, device = drawer.settings, drawer.device
        self.settings, self.device = settings, device
        weights = drawer.inputs.detectors["adapter"]
        self.adapter = load_detector(weights, device=device, max_per_image=settings.max_per_image)
        backbone = self.adapter.model.backbone
        if not hasattr(backbone, "features"):
            raise InputError(
                f"{weights}: a detector on {type(backbone).__name__}; the adapter of diffusionengine sits on "
                "a FrozenDiffusion backbone"
            )
        source = settings.model or drawer.foundation.diffusion
        if source is None:
            raise InputError(
                "foundation.diffusion: no model given; expected a folder or a hub id with revision"
            )
        frozen = load_frozen(source, backbone.features.precision)
        if frozen.fingerprint != backbone.features.fingerprint:
            raise InputError(
                f"{source.path}: another model ({frozen.fingerprint}) than the one that {weights} was trained"
                f" on ({backbone.features.fingerprint}); draw with that one, or train the adapter again"
            )
        remapped = settings.adapter.dataset not in (None, drawer.dataset.name)
        self.categories = match_categories(
            self.adapter.categories, drawer.dataset.categories, partial=remapped, where=weights
        )
        frozen.to(torch.device(device))
        # The adapter's own U-Net draws: one copy in memory, and features that are what it was trained on.
        self.pipeline = load_text_to_image(source, device, unet=frozen.unet, vae=frozen.vae)
        set_precision(self.pipeline, settings.denoising)
        self.frozen = backbone.features = frozen
        self.text = TextStates(self.pipeline, keep=256)  # prompts are as many as images
        self.made_with = {"scheduler": "DDIM", "model": frozen.fingerprint, "adapter": file_hash(weights)}
        self.unet_calls = 0
        self.pipeline.unet.register_forward_hook(self._count)

    def _count(self, *_) -> None:
        self.unet_calls += 1

    def draw(self, rows: list[dict], references: np.ndarray) -> list[base.Generated]:
        """Draw and label one batch.

        Args:
            rows: manifest rows of equal "steps".
            references: uint8 (rows, height, width, 3).
        """
        settings, sampling = self.settings, self.settings.sampling
        latents, features = redraw(
            self.pipeline,
            self.frozen.taps,
            references,
            torch.cat([self.text(row["prompt"]) for row in rows]),
            self.text(rows[0]["negative_prompt"]),
            nominal_steps=sampling.steps,
            steps=rows[0]["steps"],
            eta=[row["eta"] for row in rows],
            guidance=[row["guidance"] for row in rows],
            generators=[image_generator(row["seed"]) for row in rows],
            low_memory=sampling.low_memory,
        )
        with torch.inference_mode():
            images = decode(self.pipeline.vae, latents, "round").numpy()
        found = {LAST_STEP: detect_in_features(self.adapter, features)}
        if settings.control:
            found[PIXELS] = self.seen(images)
        results = []
        for number, (row, image) in enumerate(zip(rows, images, strict=True)):
            labels = base.Labels()
            for labeller, answers in found.items():
                self._label(labels, answers[number], labeller)
            about = reference(row) | {"nominal_steps": sampling.steps} | self.made_with
            results.append(base.Generated(row, image, labels.instances, labels.rejected, about=about))
        return results

    @torch.inference_mode()
    def seen(self, images: np.ndarray) -> list[list[dict]]:
        """What the adapter finds in pictures, real ones or drawn ones, encoded for it.

        Args:
            images: uint8 (images, height, width, 3), sides in whole latent cells.
        """
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2) / 127.5 - 1
        return detect_in_features(self.adapter, self.adapter.model.backbone(pixels))

    def _label(self, labels: base.Labels, detections: list[dict], labeller: str) -> None:
        """Add detections of one image to its labels, those of categories that nobody asks for left out."""
        for detection in detections:
            category = self.categories.get(detection["category_id"])
            score = round(detection["score"], 6)  # 0.3 of float32 is 0.3, and not a little more
            if category is None or score < self.settings.least_score:
                continue
            box = detection["bbox"]
            if min(box[2:]) > 0:
                labels.instances.append(base.Instance(category, box, score=score, labeller=labeller))
            else:
                labels.rejected.append({"reason": NO_AREA, "category_id": category, "bbox": box})


def reference(row: dict) -> dict:
    """What the record of an image says of how it was drawn; "number" counts those of a reference from 0."""
    keys = ("reference_image_id", "number", "prompt", "negative_prompt", "seed", "steps", "eta", "guidance")
    return {key: row[key] for key in keys}
