"""Classifiers of single rendered objects: the judge of the generator, and the detector's backbone."""

import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gen4det.miniature.autoencoder import to_tensor
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.corpus import iterate_corpus
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining

BATCH = 48


class Classifier(nn.Module):
    """A backbone that returns feature maps, average pooling, a linear layer.

    Input float32 (B, 3, S, S) in [-1, 1]; output logits (B, len(category_ids)).
    """

    def __init__(self, backbone: nn.Module, width: int, category_ids: list[int]):
        super().__init__()
        self.backbone, self.category_ids = backbone, category_ids
        self.head = nn.Linear(width, len(category_ids))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images)
        features = features[-1] if isinstance(features, (tuple, list)) else features
        return self.head(features.mean((2, 3)))


def small_backbone(width: int = 24) -> tuple[nn.Module, int]:
    """A plain convolutional network for the judge, of another family than the detector's."""
    layers: list[nn.Module] = []
    channels = 3
    for out in (width, 2 * width, 4 * width, 4 * width):
        layers += [
            nn.Conv2d(channels, out, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        ]
        channels = out
    return nn.Sequential(*layers), channels


def train_classifier(job: FoundationJob, model: Classifier, steps: int) -> dict:
    """Train on the corpus images that show one object of the model's categories.

    Mirrored and slightly blurred at random, so that softness alone does not change the verdict.

    Returns:
        Facts for the record; "heldout_accuracy", in [0, 1], is that on 1,000 freshly rendered images of a
        held-out stream.
    """
    corpus, device = job.inputs["corpus"], job.device
    images = np.load(corpus / "images.npy", mmap_mode="r")
    objects = json.loads((corpus / "objects.json").read_text())
    position = {category: index for index, category in enumerate(model.category_ids)}
    usable = [i for i, found in enumerate(objects) if len(found) == 1 and found[0][0] in position]
    labels = torch.tensor([position[objects[i][0][0]] for i in usable])
    usable = np.array(usable)
    model.to(device, memory_format=torch.channels_last).train()

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        pick = np.sort(rng.choice(len(usable), BATCH, replace=False))
        batch = to_tensor(images[usable[pick]], device)
        if rng.random() < 0.5:
            batch = batch.flip(3)
        if rng.random() < 0.5:
            batch = F.avg_pool2d(F.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return F.cross_entropy(model(batch), labels[torch.from_numpy(pick)].to(device))

    facts = job.train([model], step_loss, steps=steps, learning_rate=2e-3, ema_decay=0.9, weight_decay=1e-3)
    return {**facts, "heldout_accuracy": heldout_accuracy(model, job.settings, device)}


@torch.no_grad()
def heldout_accuracy(
    model: Classifier, settings: FoundationTraining, device: str, count: int = 1000
) -> float:
    """Accuracy on images of the stream "classifier-heldout" that show one of the model's categories."""
    model.eval()
    right = total = 0
    position = {category: index for index, category in enumerate(model.category_ids)}
    for item in iterate_corpus(settings, "classifier-heldout", count):
        ids = [placed.category.id for placed in item.scene.objects]
        if len(ids) == 1 and ids[0] in position:
            predicted = model(to_tensor(item.scene.image[None], device)).argmax(1).item()
            right += predicted == position[ids[0]]
            total += 1
    return right / total


def all_category_ids(rare: bool = True) -> list[int]:
    """Ids of all categories, or of those that are not rare in the LVIS edition."""
    return [category.id for category in CATEGORIES if rare or category.frequency != "r"]
