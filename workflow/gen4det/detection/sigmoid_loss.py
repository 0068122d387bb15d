"""A classifier whose categories do not compete: each has a probability of its own; there is no background.

InstaGen (arXiv 2402.05937) trains Faster R-CNN so for novel categories: a region without a label says nothing
about categories that nobody labelled, where in a softmax it would push them all down. mmdet has the loss, but
a RoI head with it still takes a softmax, over one column too many, when it predicts.
"""

import torch
from mmdet.models.losses import CrossEntropyLoss, accuracy
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class SigmoidLoss(CrossEntropyLoss):
    """mmdet's binary cross-entropy, and what a RoI head needs to know to predict with it."""

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self, loss_weight: float = 1.0):
        super().__init__(use_sigmoid=True, loss_weight=loss_weight)

    def get_cls_channels(self, num_classes: int) -> int:
        """Columns of the classifier."""
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities (regions, classes + 1); the last column is that of background, which mmdet drops."""
        return torch.cat([cls_score.sigmoid(), cls_score.new_zeros(len(cls_score), 1)], dim=1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Share of the regions with an object, in percent, whose best category is right."""
        objects = labels < cls_score.shape[1]
        return {"acc": accuracy(cls_score[objects], labels[objects])}
