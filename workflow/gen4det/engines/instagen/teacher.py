"""The teacher of the self-training: a slow average of the student (InstaGen, section 3.4)."""

import copy

import torch
from torch import Tensor, nn

from gen4det.detection.grounding_head import GroundingHead, predictions
from gen4det.engines.instagen.samples import Found


class Teacher(nn.Module):
    """A copy of a head whose weights are buffers: the training loop keeps it in its checkpoints and never
    optimises it.

    Args:
        student: the head.
        momentum: what an update leaves of the teacher.
    """

    def __init__(self, student: GroundingHead, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.head = copy.deepcopy(student)
        for module in self.head.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    del module._parameters[name]
                    module.register_buffer(name, parameter.detach().clone())
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode: no dropout."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, student: GroundingHead, *, begin: bool = False) -> None:
        """Take (1 - momentum) of the student's weights; all of them to begin with."""
        keep = 0.0 if begin else self.momentum
        own = dict(self.head.named_buffers())
        for name, weight in student.named_parameters():
            own[name].mul_(keep).add_(weight.detach(), alpha=1 - keep)

    @torch.no_grad()
    def labels(
        self,
        features: list[Tensor],
        text: Tensor,
        named: Tensor,
        records: list[dict],
        novel: set[int] | frozenset[int],
        beta: float,
    ) -> list[list[Found]]:
        """What it finds of novel categories in each image, scores above `beta`."""
        return found_by(self.head, features, text, named, records, novel, beta)


@torch.no_grad()
def found_by(
    head: GroundingHead,
    features: list[Tensor],
    text: Tensor,
    named: Tensor,
    records: list[dict],
    novel: set[int] | frozenset[int],
    beta: float,
) -> list[list[Found]]:
    """Objects of prompted novel categories, scores above `beta`, best first.

    Args:
        records: of the images; what the slots of `text` mean stands in their "categories".
    """
    found = []
    for record, (scores, slots, boxes) in zip(
        records, predictions(head(features, text, named), named), strict=True
    ):
        size = boxes.new_tensor([record["width"], record["height"]] * 2)
        of_image = []
        for score, slot, box in zip(scores.tolist(), slots.tolist(), (boxes * size).tolist(), strict=True):
            category = record["categories"][slot]
            x0, y0, x1, y1 = box
            if score > beta and category in novel and x1 - x0 >= 1 and y1 - y0 >= 1:
                of_image.append((category, score, [x0, y0, x1 - x0, y1 - y0]))
        found.append(of_image)
    return found
