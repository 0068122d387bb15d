"""Parts of mmdet for training on synthetic images, whose labels are true but not complete.

What an engine draws may show more than it labels: objects that came with the scenery, objects whose label a
filter dropped. Gen2Det (arXiv 2312.04566) therefore lets background of synthetic images teach nothing
("background ignore"), and lets images without masks teach the mask head nothing. Both are done here by parts
that stand in for mmdet's in the configuration of a training; on real images they do exactly what mmdet does.

Whether an image is synthetic stands in the meta information of its `gt_instances`, the one thing of an image
that samplers are shown (`flag_instances`).
"""

import copy

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
    "StandardRoIHead": "SyntheticAwareStandardRoIHead",
    "CascadeRoIHead": "SyntheticAwareCascadeRoIHead",
}
"""RoI heads of mmdet and what stands in for them."""
DENSE_HEADS = ("RPNHead", "RetinaHead", "ATSSHead")
"""Heads of mmdet over all anchors that give regions left out by a sampler no weight in any loss. Others do
not ask a sampler (FCOSHead) or weigh left-out regions all the same (VFNetHead)."""


def flag_instances(instances: InstanceData, *, synthetic: bool, masked: bool) -> None:
    """Note in the labels of a training image where it comes from.

    Args:
        synthetic: whether an engine drew the image.
        masked: whether the labels have masks; otherwise what stands there is not to be learned.
    """
    instances.set_metainfo({"synthetic": synthetic, "masked": masked})


def make_aware(
    model: dict,
    *,
    ignore_background: bool,
    fill_with_positives: bool = False,
    normalise_by: str = "sampled",
    source: str,
) -> dict:
    """A copy of a model's configuration, to train with, that tells synthetic images from real ones.

    Args:
        model: in mmdet's words.
        ignore_background: see `DetectorSettings.ignore_background`; else masks alone are looked after.
        fill_with_positives, normalise_by: see there.
        source: config file named in errors.

    Raises:
        InputError: a kind of RoI head that there is no counterpart for, or a mask head outside of it.
    """
    model = Config(model).to_dict()
    if model.get("mask_head"):
        raise InputError(
            f"{source}: ignore_background, or synthetic images without masks, need a detector whose masks "
            f"come from a RoI head, not {model['type']}"
        )
    if model.get("roi_head"):
        kind = model["roi_head"]["type"].removeprefix("mmdet.")
        if kind not in ROI_HEADS:
            raise InputError(
                f"{source}: ignore_background, or synthetic images without masks, need a RoI head of the "
                f"kind {' or '.join(ROI_HEADS)}, not {kind}"
            )
        model["roi_head"]["type"] = ROI_HEADS[kind]
    if ignore_background:
        for settings in _with_assigner(model.get("train_cfg")):
            usual = settings.get("sampler") or {"type": "PseudoSampler"}
            settings["sampler"] = {
                "type": "PositivesOfSynthetic",
                "sampler": usual,
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
    """Check that every head that learns from background leaves that of synthetic images out.

    Raises:
        InputError: a dense head that is not among DENSE_HEADS, or a head that asks no sampler.
    """
    dense = getattr(model, "rpn_head", None) or getattr(model, "bbox_head", None)
    reached = type(dense).__name__ in DENSE_HEADS and isinstance(dense.sampler, PositivesOfSynthetic)
    if not reached:
        raise InputError(
            f"{source}: ignore_background does not reach {type(dense).__name__}, but {', '.join(DENSE_HEADS)}"
        )
    if getattr(model, "roi_head", None) is not None:
        chosen = model.roi_head.bbox_sampler
        if not isinstance(chosen[0] if isinstance(chosen, list) else chosen, PositivesOfSynthetic):
            raise InputError(
                f"{source}: ignore_background does not reach {type(model.roi_head).__name__}: no sampler"
            )


# --- regions to learn from ------------------------------------------------------------------------


@TASK_UTILS.register_module()
class PositivesOfSynthetic:
    """A sampler that leaves out the background of synthetic images; on real images the usual one.

    Serves every head that asks a sampler: anchors of region proposals, proposals of one or several stages,
    and, around PseudoSampler, dense one-stage heads, where all priors that are not positive then have weight
    zero in the (focal) loss.

    Args:
        sampler: the usual sampler, in mmdet's words.
        fill_with_positives: on synthetic images, draw as many positives as otherwise positives and negatives
            together (the sampler's `num`).
        normalise_by: what losses are divided by, "learned" regions or all "sampled" ones; as `avg_factor` for
            the first stage, as `left_out` for the second, whose heads count regions themselves.
        context: the head, handed on.
    """

    def __init__(
        self,
        sampler: dict,
        fill_with_positives: bool = False,
        normalise_by: str = "sampled",
        context: object = None,
    ):
        self.counts_left_out = normalise_by == "sampled"
        self.usual = TASK_UTILS.build(dict(sampler), default_args=dict(context=context))
        self.for_synthetic = self.usual
        if fill_with_positives and "pos_fraction" in sampler:
            generous = {**sampler, "pos_fraction": 1.0}
            self.for_synthetic = TASK_UTILS.build(generous, default_args=dict(context=context))

    def sample(
        self, assigned: AssignResult, predicted: InstanceData, labelled: InstanceData, **more: object
    ) -> SamplingResult:
        """Choose the regions of one image that are learned from."""
        if not labelled.get("synthetic", False):
            return self.usual.sample(assigned, predicted, labelled, **more)
        result = self.for_synthetic.sample(assigned, predicted, labelled, **more)
        return _without_negatives(result, self.counts_left_out)


def _without_negatives(result: SamplingResult, counted: bool) -> SamplingResult:
    result.left_out = result.neg_inds.numel() if counted and result.avg_factor_with_neg else 0
    result.neg_inds = result.neg_inds[:0]
    result.neg_priors = result.neg_priors[:0]
    # mmdet counts at least one of each kind: synthetic images without labels would weigh down the others.
    result.num_pos, result.num_neg = result.pos_inds.numel(), 0
    result.avg_factor = result.num_pos + result.left_out
    return result


# --- heads of the second stage --------------------------------------------------------------------


class _SyntheticAware:
    """What both RoI heads add to mmdet's.

    Every parameter takes part in every iteration, if with a gradient of zero: processes that train together
    wait for each other's gradients, parameter by parameter, and one that is missing would let them hang.
    """

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
        results = super().bbox_loss(*arguments)
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
class SyntheticAwareStandardRoIHead(_SyntheticAware, StandardRoIHead):
    """StandardRoIHead for synthetic images."""

    def mask_loss(self, x: tuple, sampling_results: list, bbox_feats: object, instances: list) -> dict:
        """mmdet's, on the images that have masks."""
        return super().mask_loss(x, _masked_only(sampling_results, instances), bbox_feats, instances)


@MODELS.register_module()
class SyntheticAwareCascadeRoIHead(_SyntheticAware, CascadeRoIHead):
    """CascadeRoIHead for synthetic images."""

    def loss(self, x: tuple, rpn_results_list: list, batch_data_samples: list) -> dict:
        """mmdet's, which ends early where a stage has no region: zeros that reach the stages left out."""
        losses = super().loss(x, rpn_results_list, batch_data_samples)
        for stage in range(self.num_stages):
            if f"s{stage}.loss_cls" not in losses:
                heads = [self.bbox_head[stage], *([self.mask_head[stage]] if self.with_mask else [])]
                losses[f"s{stage}.loss_cls"] = sum(0 * p.sum() for head in heads for p in head.parameters())
        return losses

    def bbox_loss(self, stage: int, x: tuple, sampling_results: list) -> dict:
        """mmdet's. What the first stage left out is not seen by the later ones, but counted there, too."""
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
