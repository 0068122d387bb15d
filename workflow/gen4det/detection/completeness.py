"""Parts of mmdet for training on images whose labels are true but not complete.

Generated images may show more objects than they have labels for: objects that the generator added, objects
whose label a filter rejected. Gen2Det (arXiv 2312.04566) therefore computes no loss on background of
synthetic images ("background ignore"), and no mask loss on images without masks. Open-vocabulary detection is
the opposite case: real images are labelled for the base categories only. There InstaGen trains the region
proposal network, which is class-agnostic, without background, and gives the classifier's columns of other
categories no gradient; synthetic images train the columns of the categories they declare only.

The parts here replace mmdet's in the configuration of a training; on images with complete labels they do
exactly what mmdet's do. How complete the labels of an image are is stored in the meta information of its
`gt_instances`, the only part of an image that samplers receive (`flag_instances`). It comes from the settings
of the training or from the annotation file of a set (`datasets.Source`).
"""

import copy

import torch

from gen4det.detection import detectors  # noqa: F401  (makes mmdet usable; before anything of it is imported)

# isort: split
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from gen4det.core.errors import InputError

ROI_HEADS = {
    "StandardRoIHead": "IncompleteStandardRoIHead",
    "CascadeRoIHead": "IncompleteCascadeRoIHead",
}
"""RoI heads of mmdet and what replaces them."""
DENSE_HEADS = ("RPNHead", "RetinaHead", "ATSSHead")
"""Dense heads of mmdet that give regions left out by a sampler no weight in any loss. Others use no sampler
(FCOSHead) or weigh left-out regions all the same (VFNetHead)."""
UNSAID = -1e4
"""Logit of a category that is not annotated in an image: its probability is 0 in a softmax as in a sigmoid,
also in half precision, and the logit it replaces has no gradient."""


def flag_instances(
    instances: InstanceData,
    *,
    ignore_background: bool = False,
    masked: bool = True,
    annotated: list[int] | None = None,
    proposals: str = "objects",
) -> None:
    """Note in the labels of a training image what they leave out.

    Args:
        ignore_background: whether regions that match no label have no loss.
        masked: whether the labels have masks; otherwise what stands there is not to be learned.
        annotated: labels of the categories whose objects are labelled; None: all.
        proposals: what region proposals learn from where some are not, see `Completeness`.
    """
    instances.set_metainfo({
        "ignore_background": ignore_background,
        "masked": masked,
        "annotated": annotated,
        "proposals": proposals,
    })  # fmt: skip


def make_aware(
    model: dict,
    *,
    ignore_background: bool,
    categories_missing: bool = False,
    fill_with_positives: bool = False,
    normalise_by: str = "sampled",
    source: str,
) -> dict:
    """A copy of a model's configuration, to train with, that takes incomplete labels into account.

    Args:
        model: in mmdet's words.
        ignore_background: whether background of some images has no loss.
        categories_missing: whether some images have labels of some categories only.
        fill_with_positives, normalise_by: see `DetectorSettings`.
        source: config file named in errors.

    Raises:
        InputError: a kind of RoI head that there is no counterpart for, or a mask head outside of it; with
            `categories_missing` a detector without region proposals and RoI head.
    """
    model = Config(model).to_dict()
    if categories_missing and not (model.get("rpn_head") and model.get("roi_head")):
        raise InputError(
            f"{source}: labels of some categories alone need a detector with region proposals and a RoI "
            f"head, not {model['type']}"
        )
    if model.get("mask_head"):
        raise InputError(
            f"{source}: incomplete labels, or synthetic images without masks, need a detector whose masks "
            f"come from a RoI head, not {model['type']}"
        )
    if model.get("roi_head"):
        kind = model["roi_head"]["type"].removeprefix("mmdet.")
        if kind not in ROI_HEADS:
            raise InputError(
                f"{source}: incomplete labels, or synthetic images without masks, need a RoI head of the "
                f"kind {' or '.join(ROI_HEADS)}, not {kind}"
            )
        model["roi_head"]["type"] = ROI_HEADS[kind]
    if ignore_background or categories_missing:
        train = model.get("train_cfg") or {}
        proposing = _with_assigner(train.get("rpn"))
        for settings in _with_assigner(train):
            usual = settings.get("sampler") or {"type": "PseudoSampler"}
            settings["sampler"] = {
                "type": "IncompleteSampler",
                "sampler": usual,
                "class_agnostic": any(settings is found for found in proposing),
                "fill_with_positives": fill_with_positives,
                "normalise_by": normalise_by,
            }
    return model


def _with_assigner(value: object) -> list[dict]:
    """All dictionaries of a piece of configuration that say how regions are assigned to labels."""
    if isinstance(value, list | tuple):
        return [found for item in value for found in _with_assigner(item)]
    if not isinstance(value, dict):
        return []
    here = [value] if "assigner" in value else []
    return here + [found for item in value.values() for found in _with_assigner(item)]


def require_aware(model: nn.Module, source: str) -> None:
    """Check that every head with a loss on background uses a sampler that can leave background out.

    Raises:
        InputError: a dense head that is not among DENSE_HEADS, or a head without a sampler.
    """
    dense = getattr(model, "rpn_head", None) or getattr(model, "bbox_head", None)
    reached = type(dense).__name__ in DENSE_HEADS and isinstance(dense.sampler, IncompleteSampler)
    if not reached:
        raise InputError(
            f"{source}: ignore_background does not reach {type(dense).__name__}, but {', '.join(DENSE_HEADS)}"
        )
    if getattr(model, "roi_head", None) is not None:
        chosen = model.roi_head.bbox_sampler
        if not isinstance(chosen[0] if isinstance(chosen, list) else chosen, IncompleteSampler):
            raise InputError(
                f"{source}: ignore_background does not reach {type(model.roi_head).__name__}: no sampler"
            )


# --- regions to learn from ------------------------------------------------------------------------


@TASK_UTILS.register_module()
class IncompleteSampler:
    """A sampler that leaves out background where labels are incomplete; on other images the usual one.

    Works for every head that uses a sampler: anchors of region proposals, proposals of one or several stages,
    and, around PseudoSampler, dense one-stage heads, where all priors that are not positive then have weight
    zero in the (focal) loss.

    Args:
        sampler: the usual sampler, in mmdet's words.
        fill_with_positives: where background is ignored, draw as many positives as otherwise positives and
            negatives together (the sampler's `num`).
        normalise_by: what losses are divided by, "learned" regions or all "sampled" ones; as `avg_factor` for
            the first stage, as `left_out` for the second, whose heads count regions themselves.
        class_agnostic: whether the head only separates objects from background. Background may then
            show objects of categories without labels, and is left out on images that have labels of some
            categories only. A classifier keeps it, as background of the labelled categories only.
        context: the head, passed on.
    """

    def __init__(
        self,
        sampler: dict,
        fill_with_positives: bool = False,
        normalise_by: str = "sampled",
        class_agnostic: bool = False,
        context: object = None,
    ):
        self.counts_left_out = normalise_by == "sampled"
        self.class_agnostic = class_agnostic
        self.usual = TASK_UTILS.build(dict(sampler), default_args=dict(context=context))
        self.where_ignored = self.usual
        if fill_with_positives and "pos_fraction" in sampler:
            generous = {**sampler, "pos_fraction": 1.0}
            self.where_ignored = TASK_UTILS.build(generous, default_args=dict(context=context))

    def sample(
        self, assigned: AssignResult, predicted: InstanceData, labelled: InstanceData, **more: object
    ) -> SamplingResult:
        """Sample the regions of one image that have a loss."""
        annotated = labelled.get("annotated")
        unsure = annotated is not None and labelled.get("proposals", "objects") == "objects"
        if labelled.get("ignore_background", False) or (unsure and self.class_agnostic):
            result = self.where_ignored.sample(assigned, predicted, labelled, **more)
            result = _without_negatives(result, self.counts_left_out)
        else:
            result = self.usual.sample(assigned, predicted, labelled, **more)
        result.annotated = annotated
        return result


def _without_negatives(result: SamplingResult, counted: bool) -> SamplingResult:
    result.left_out = result.neg_inds.numel() if counted and result.avg_factor_with_neg else 0
    result.neg_inds = result.neg_inds[:0]
    result.neg_priors = result.neg_priors[:0]
    # mmdet counts at least one of each kind: synthetic images without labels would weigh down the others.
    result.num_pos, result.num_neg = result.pos_inds.numel(), 0
    result.avg_factor = result.num_pos + result.left_out
    return result


# --- heads of the second stage --------------------------------------------------------------------


class _Incomplete:
    """What both RoI heads add to mmdet's.

    Every parameter takes part in every iteration, if with a gradient of zero: processes that train together
    wait for each other's gradients, parameter by parameter, and one that is missing would let them hang.
    """

    _samples: list[SamplingResult] | None = None
    """Regions whose loss is being computed, image by image."""

    def _bbox_forward(self, *arguments: object) -> dict:
        """mmdet's; in training, categories that an image has no labels of take no part in its scores."""
        results = super()._bbox_forward(*arguments)
        samples = self._samples or []
        if any(getattr(sample, "annotated", None) is not None for sample in samples):
            scores = results["cls_score"]
            head = self.bbox_head[arguments[0]] if isinstance(arguments[0], int) else self.bbox_head
            unsaid = [_unsaid(sample, head.num_classes, scores) for sample in samples]
            results["cls_score"] = scores.masked_fill(torch.cat(unsaid), UNSAID)
        return results

    def loss(self, x: tuple, rpn_results_list: list, batch_data_samples: list) -> dict:
        """mmdet's losses; the mask loss is left out, not zero, where no image of the batch has masks."""
        losses = super().loss(x, rpn_results_list, batch_data_samples)
        if not any(sample.gt_instances.get("masked", True) for sample in batch_data_samples):
            for name in [name for name in losses if name.endswith("loss_mask")]:
                carrier = name.replace("loss_mask", "loss_bbox")
                losses[carrier] = losses[carrier] + losses.pop(name)  # a zero that reaches the mask head
        return losses

    def bbox_loss(self, *arguments: object) -> dict:
        """mmdet's; of no region at all a zero instead of nothing. What was left out may count as learned."""
        self._samples = arguments[-1]
        try:
            results = super().bbox_loss(*arguments)
        finally:
            self._samples = None
        losses = results["loss_bbox"]
        if results["cls_score"].numel() == 0:
            losses.setdefault("loss_cls", results["cls_score"].sum())
        samples = arguments[-1]
        left_out = sum(getattr(sample, "left_out", 0) for sample in samples)
        if left_out:
            learned = sum(len(sample.priors) for sample in samples)
            for name in [name for name in losses if "loss" in name]:
                losses[name] = losses[name] * (learned / (learned + left_out))
        return results


@MODELS.register_module()
class IncompleteStandardRoIHead(_Incomplete, StandardRoIHead):
    """StandardRoIHead for incomplete labels."""

    def mask_loss(self, x: tuple, sampling_results: list, bbox_feats: object, instances: list) -> dict:
        """mmdet's, on the images that have masks."""
        return super().mask_loss(x, _masked_only(sampling_results, instances), bbox_feats, instances)


@MODELS.register_module()
class IncompleteCascadeRoIHead(_Incomplete, CascadeRoIHead):
    """CascadeRoIHead for incomplete labels."""

    def loss(self, x: tuple, rpn_results_list: list, batch_data_samples: list) -> dict:
        """mmdet's, which ends early where a stage has no region: zeros that reach the stages left out."""
        losses = super().loss(x, rpn_results_list, batch_data_samples)
        for stage in range(self.num_stages):
            if f"s{stage}.loss_cls" not in losses:
                heads = [self.bbox_head[stage], *([self.mask_head[stage]] if self.with_mask else [])]
                losses[f"s{stage}.loss_cls"] = sum(0 * p.sum() for head in heads for p in head.parameters())
        return losses

    def bbox_loss(self, stage: int, x: tuple, sampling_results: list) -> dict:
        """mmdet's. Regions that the first stage left out count in the divisors of the later ones, too."""
        if stage == 0:
            self._counted = [
                len(result.priors) + result.left_out if getattr(result, "left_out", 0) else 0
                for result in sampling_results
            ]
        for result, counted in zip(sampling_results, self._counted, strict=True):
            result.left_out = max(0, counted - len(result.priors))
        return super().bbox_loss(stage, x, sampling_results)

    def mask_loss(self, stage: int, x: tuple, sampling_results: list, instances: list) -> dict:
        """mmdet's, on the images that have masks."""
        return super().mask_loss(stage, x, _masked_only(sampling_results, instances), instances)


def _unsaid(sample: SamplingResult, classes: int, scores: torch.Tensor) -> torch.Tensor:
    """Columns of categories not annotated in the image, for its N regions: bool (N, columns) like the scores.

    Columns after the classes, such as background, are never among them.
    """
    columns = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
    if getattr(sample, "annotated", None) is not None:
        columns[:classes] = True
        columns[sample.annotated] = False
    return columns.expand(len(sample.priors), -1)


def _masked_only(results: list[SamplingResult], instances: list[InstanceData]) -> list[SamplingResult]:
    """The same samples, without positives on images whose labels have no masks."""
    return [
        result if labels.get("masked", True) else _without_positives(result)
        for result, labels in zip(results, instances, strict=True)
    ]


_OF_POSITIVES = ("inds", "priors", "is_gt", "assigned_gt_inds", "gt_labels", "gt_bboxes")


def _without_positives(result: SamplingResult) -> SamplingResult:
    emptied = copy.copy(result)
    emptied.neg_priors = result.priors  # all regions, so that rows of shared features keep their count
    for name in _OF_POSITIVES:
        setattr(emptied, f"pos_{name}", getattr(result, f"pos_{name}")[:0])
    return emptied
