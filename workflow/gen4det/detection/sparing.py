"""Parts of mmdet that give what mmdet's give, for less work.

mmdet handles the images of a batch one after the other, in dozens of small steps each; on a CPU, and with
small images, these take longer than what they compute. The heads here take the places of mmdet's in its
registry, so that config files and weights stay as they are. They do the steps of all images at once where the
images are alike, and hand on to mmdet where they are not. Numbers are the same to the bit, random draws
included. `detectors` imports this module, once mmdet can be used.
"""

from typing import Any

import numpy as np
import torch
from mmcv.ops import roi_align
from mmdet.models.data_preprocessors import DetDataPreprocessor as _DetDataPreprocessor
from mmdet.models.dense_heads import RPNHead as _RPNHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead as _FCNMaskHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor
from torch.nn.modules.utils import _pair

from gen4det.detection.mmcv_nms import suppress

_NMS_AT_ONCE = 10_000  # from here on mmcv suppresses in another order


class TrainingSample(DetDataSample):
    """Labels of a training image, of which copies share what nobody changes in place.

    A detector of two stages copies the labels of every batch, to call all categories one; and a preprocessor
    moves them to the device, as a rule to where they are. For both mmdet makes every object anew, masks too.
    """

    @classmethod
    def of(cls, sample: DetDataSample) -> "TrainingSample":
        """The same labels."""
        return _sharing(sample, cls)

    def __deepcopy__(self, memo: dict) -> "TrainingSample":
        copied = _sharing(self, type(self))
        for name, value in vars(self).items():
            if isinstance(value, BaseDataElement):
                vars(copied)[name] = _sharing(value, type(value))
        return copied

    def to(self, *arguments: Any, **more: Any) -> DetDataSample:
        """mmdet's; the sample itself if it is where it is asked to be, on the CPU."""
        here = self.gt_instances.bboxes.device.type == "cpu"
        if here and len(arguments) == 1 and str(arguments[0]) == "cpu":
            return self
        return super().to(*arguments, **more)


@MODELS.register_module(force=True)
class DetDataPreprocessor(_DetDataPreprocessor):
    """mmdet's preparation of a batch."""

    def pad_gt_masks(self, batch_data_samples: list[DetDataSample]) -> None:
        """mmdet's, for images whose masks are not of the size of the batch already."""
        if "masks" in batch_data_samples[0].gt_instances:
            masks = [sample.gt_instances.masks for sample in batch_data_samples]
            batch_data_samples = [
                sample
                for sample, its in zip(batch_data_samples, masks, strict=True)
                if (its.height, its.width) != sample.batch_input_shape
            ]
        if batch_data_samples:
            super().pad_gt_masks(batch_data_samples)


def _sharing(element: BaseDataElement, kind: type) -> Any:
    """An element of a kind with the same fields; the fields can be set anew without a change of the other."""
    shared = object.__new__(kind)
    vars(shared).update({
        name: set(value) if isinstance(value, set) else value for name, value in vars(element).items()
    })  # fmt: skip
    return shared


@MODELS.register_module(force=True)
class RPNHead(_RPNHead):
    """mmdet's region proposals."""

    _anchors: tuple = (None, None)
    _priors: tuple = (None, None)

    def get_anchors(self, featmap_sizes: list, batch_img_metas: list, device: Any = "cuda") -> tuple:
        """mmdet's, computed again only when images of other sizes come."""
        sizes = [tuple(size) for size in featmap_sizes]
        key = (sizes, [tuple(meta["pad_shape"]) for meta in batch_img_metas], str(device))
        if self._anchors[0] != key:
            self._anchors = key, super().get_anchors(featmap_sizes, batch_img_metas, device)
        return self._anchors[1]

    def _get_targets_single(
        self, flat_anchors: Any, valid_flags: Tensor, *arguments: Any, unmap_outputs: bool = True, **more: Any
    ) -> tuple:
        """mmdet's; where all anchors take part, nothing has to be written back to their places."""
        all_inside = self.train_cfg["allowed_border"] < 0 and bool(valid_flags.all())
        return super()._get_targets_single(
            flat_anchors, valid_flags, *arguments, unmap_outputs=unmap_outputs and not all_inside, **more
        )

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
        batch_img_metas: list[dict] | None = None,
        cfg: ConfigDict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """The best boxes of each image that do not overlap; mmdet's arguments and result."""
        settings = self.test_cfg if cfg is None else cfg
        shapes = {tuple(meta["img_shape"][:2]) for meta in batch_img_metas}
        if not self._at_once(cls_scores, settings) or len(shapes) > 1 or rescale or not with_nms:
            return super().predict_by_feat(
                cls_scores, bbox_preds, score_factors, batch_img_metas, cfg, rescale, with_nms
            )
        scores, deltas, priors = [], [], []
        for level, anchors in enumerate(self._grid(cls_scores)):
            ranked = _by_anchor(cls_scores[level], 1)[..., 0].sigmoid()
            best = min(settings.nms_pre, ranked.shape[1]) if settings.get("nms_pre", -1) > 0 else None
            # Of equal scores mmdet takes those that the faster sort puts first, if it has to choose at all.
            cut = best is not None and best < ranked.shape[1]
            ranked, order = ranked.sort(dim=1, descending=True, stable=not cut)
            ranked, order = ranked[:, :best], order[:, :best]
            scores.append(ranked)
            places = order[..., None].expand(-1, -1, 4)
            deltas.append(_by_anchor(bbox_preds[level], 4).gather(1, places))
            priors.append(anchors[order])
        images = len(scores[0])
        boxes = self.bbox_coder.decode(
            torch.cat(priors, 1).view(-1, 4), torch.cat(deltas, 1).view(-1, 4), max_shape=shapes.pop()
        ).view(images, -1, 4)
        # mmcv moves the levels apart so that boxes of different ones do not meet, and rounding with them.
        apart = boxes.amax((1, 2)) + 1
        kept, first = [], 0
        for level, ranked in enumerate(scores):
            of_level = boxes[:, first : first + ranked.shape[1]]
            kept.append(suppress(of_level + level * apart[:, None, None], settings.nms.iou_threshold))
            first += ranked.shape[1]
        scores, kept = torch.cat(scores, 1), torch.cat(kept, 1)
        best = torch.where(kept, scores, -1).sort(dim=1, descending=True, stable=True).indices
        best = best[:, : settings.max_per_img]
        results = []
        for image, count in enumerate(kept.sum(1).tolist()):
            chosen = best[image, :count]
            results.append(
                InstanceData(
                    bboxes=boxes[image, chosen],
                    scores=scores[image, chosen],
                    labels=torch.zeros(len(chosen), dtype=torch.long),
                )
            )
        return results

    def _at_once(self, cls_scores: list[Tensor], settings: ConfigDict) -> bool:
        """Whether the settings are the usual ones, and the boxes few."""
        pre = settings.get("nms_pre", -1)
        boxes = [score[0].numel() for score in cls_scores]
        return (
            cls_scores[0].device.type == "cpu"
            and cls_scores[0].dtype == torch.float32
            and self.use_sigmoid_cls
            and self.cls_out_channels == 1
            and type(self.bbox_coder) is DeltaXYWHBBoxCoder
            and not self.bbox_coder.use_box_type
            and settings.get("min_bbox_size", -1) < 0
            and settings.nms.get("type") == "nms"
            and set(settings.nms) == {"type", "iou_threshold"}
            and sum(min(pre, count) if pre > 0 else count for count in boxes) < _NMS_AT_ONCE
        )

    def _grid(self, cls_scores: list[Tensor]) -> list[Tensor]:
        """Anchors of each level, (N, 4)."""
        sizes = [tuple(score.shape[-2:]) for score in cls_scores]
        if self._priors[0] != sizes:
            grid = self.prior_generator.grid_priors(sizes, dtype=cls_scores[0].dtype, device="cpu")
            self._priors = sizes, grid
        return self._priors[1]


def _by_anchor(values: Tensor, each: int) -> Tensor:
    """Outputs (N, anchors * each, H, W) in the order of anchors, (N, H * W * anchors, each), no gradient."""
    return values.detach().permute(0, 2, 3, 1).reshape(len(values), -1, each)


@MODELS.register_module(force=True)
class FCNMaskHead(_FCNMaskHead):
    """mmdet's mask head."""

    def get_targets(
        self,
        sampling_results: list[SamplingResult],
        batch_gt_instances: list[InstanceData],
        rcnn_train_cfg: ConfigDict,
    ) -> Tensor:
        """Masks inside the regions, (regions, *mask_size), 0 or 1; mmdet's arguments and result."""
        pairs = [
            (result, instances.masks)
            for result, instances in zip(sampling_results, batch_gt_instances, strict=True)
            if len(result.pos_priors)
        ]
        sizes = {(masks.height, masks.width) for _, masks in pairs}
        bitmaps = all(isinstance(masks, BitmapMasks) for _, masks in pairs)
        if len(sizes) != 1 or not bitmaps or rcnn_train_cfg.get("soft_mask_target", False):
            return super().get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
        ((height, width),) = sizes
        boxes = torch.cat([result.pos_priors for result, _ in pairs])
        limits = boxes.new_tensor([width, height, width, height])
        owner = torch.arange(len(boxes), device=boxes.device)[:, None]
        rois = torch.cat([owner.to(boxes), boxes.clamp(min=0).minimum(limits)], 1)
        planes = np.concatenate([masks.masks[it.pos_assigned_gt_inds.cpu().numpy()] for it, masks in pairs])
        planes = torch.from_numpy(planes).to(boxes)[:, None]
        inside = roi_align(planes, rois, _pair(rcnn_train_cfg.mask_size), 1.0, 0, "avg", True)
        return (inside[:, 0] >= 0.5).float()
