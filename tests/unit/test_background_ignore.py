"""Training on synthetic images: background that teaches nothing, masks that are not there."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from tiny_detector import CATEGORIES, tiny_config, tiny_dataset
from torch.nn import functional

from gen4det.core.errors import InputError
from gen4det.detection.completeness import flag_instances, make_aware, require_aware
from gen4det.detection.datasets import DetectionDataset, Source, seed_everything
from gen4det.detection.detectors import build_model, load_config
from gen4det.detection.samplers import Draw
from gen4det.detection.settings import DetectorSettings
from gen4det.detection.training import initial_model


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return tiny_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[dict]:
    """Two images with objects, as a loader gives them; the second one first as a real image with masks."""
    dataset = tiny_dataset(tmp_path_factory.mktemp("data"), [[3, 7], [7, 3]])
    source = Source("tiny", dataset.train.annotations_path, dataset.train.labels(), dataset.train.images)
    pipeline = [
        dict(type="LoadStoredImage"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
    ]
    data = DetectionDataset([source], CATEGORIES, pipeline, masks=True)
    return [data[Draw(index, 0)] for index in range(2)]


def model_of(config: Path, **switches: bool | str) -> torch.nn.Module:
    settings = DetectorSettings(config=str(config), **switches)
    return initial_model(load_config(config, classes=len(CATEGORIES)), settings, 0).train()


def batch_of(model: torch.nn.Module, *items: dict, synthetic: list[bool], masked: bool | None = None) -> dict:
    """Items as one prepared batch."""
    items = copy.deepcopy(list(items))
    for item, drawn in zip(items, synthetic, strict=True):
        has_masks = not drawn if masked is None else masked
        flag_instances(item["data_samples"].gt_instances, ignore_background=drawn, masked=has_masks)
    return model.data_preprocessor(pseudo_collate(items), training=True)


def losses_of(model: torch.nn.Module, batch: dict, seed: int = 5) -> dict[str, torch.Tensor]:
    seed_everything(seed)
    found = model.loss(batch["inputs"], batch["data_samples"])
    return {name: sum(v) if isinstance(v, list) else v for name, v in found.items() if "loss" in name}


def without_labels(item: dict) -> dict:
    item = copy.deepcopy(item)
    item["data_samples"].gt_instances = item["data_samples"].gt_instances[:0]
    return item


# --- nothing changes where it must not ------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"fill_with_positives": True}, {"normalise_by": "learned"}])
def test_on_real_images_the_losses_are_those_of_mmdet(config, items, more):
    stock = model_of(config)
    aware = model_of(config, ignore_background=True, **more)
    expected = losses_of(stock, batch_of(stock, *items, synthetic=[False, False]))
    found = losses_of(aware, batch_of(aware, *items, synthetic=[False, False]))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), abs=1e-6), name


def test_with_the_switch_off_synthetic_images_are_like_any_other(config, items):
    model = model_of(config)
    as_real = losses_of(model, batch_of(model, *items, synthetic=[False, False]))
    as_synthetic = losses_of(model, batch_of(model, *items, synthetic=[True, True], masked=True))
    assert {k: float(v) for k, v in as_real.items()} == {k: float(v) for k, v in as_synthetic.items()}
    assert type(model.roi_head).__name__ == "StandardRoIHead"


# --- region proposals -----------------------------------------------------------------------------


def assigned_anchors(head: torch.nn.Module, scores: list, batch: dict, image: int) -> torch.Tensor:
    """What mmdet's assigner says of every anchor: 0 background, -1 ignored, else the number of its object."""
    sizes = [score.shape[-2:] for score in scores]
    anchors = torch.cat(head.prior_generator.grid_priors(sizes, device="cpu"))
    labelled = InstanceData(
        bboxes=batch["data_samples"][image].gt_instances.bboxes,
        labels=torch.zeros(len(batch["data_samples"][image].gt_instances), dtype=torch.long),
    )
    return head.assigner.assign(InstanceData(priors=anchors), labelled).gt_inds


def rpn_losses(model: torch.nn.Module, batch: dict) -> tuple[dict, list[torch.Tensor]]:
    """Losses of the region proposals and the logits of objectness, as leaves."""
    samples = copy.deepcopy(batch["data_samples"])
    for sample in samples:
        sample.gt_instances.labels = torch.zeros_like(sample.gt_instances.labels)
    scores, deltas = model.rpn_head(model.extract_feat(batch["inputs"]))
    scores = [score.detach().requires_grad_() for score in scores]
    seed_everything(5)
    losses = model.rpn_head.loss_by_feat(
        scores,
        [delta.detach() for delta in deltas],
        [sample.gt_instances for sample in samples],
        [sample.metainfo for sample in samples],
    )
    return {name: sum(values) for name, values in losses.items()}, scores


def flat(values: list[torch.Tensor], image: int) -> torch.Tensor:
    """Values of all anchors of an image, in the order of the anchors."""
    return torch.cat([value[image].permute(1, 2, 0).flatten() for value in values])


def test_objectness_of_background_anchors_has_no_gradient_on_a_synthetic_image(config, items):
    model = model_of(config, ignore_background=True, normalise_by="learned")
    batch = batch_of(model, items[0], synthetic=[True])
    losses, scores = rpn_losses(model, batch)
    losses["loss_rpn_cls"].backward()
    gradient = flat([score.grad for score in scores], 0)
    objects = assigned_anchors(model.rpn_head, scores, batch, 0) > 0
    assert 0 < objects.sum() <= 32  # all of them fit into the sample
    assert (gradient[~objects] == 0).all() and (gradient[objects] != 0).all()
    logits = flat(scores, 0)[objects]
    expected = functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    assert float(losses["loss_rpn_cls"]) == pytest.approx(float(expected), abs=1e-6)


def test_objectness_of_background_anchors_has_a_gradient_on_a_real_image(config, items):
    model = model_of(config, ignore_background=True)
    batch = batch_of(model, items[0], synthetic=[False])
    losses, scores = rpn_losses(model, batch)
    losses["loss_rpn_cls"].backward()
    gradient = flat([score.grad for score in scores], 0)
    background = assigned_anchors(model.rpn_head, scores, batch, 0) == 0
    assert (gradient[background] != 0).sum() > 16


def test_a_mixed_batch_is_the_mean_over_all_anchors_that_teach(config, items):
    model = model_of(config, ignore_background=True, normalise_by="learned")
    model.eval()  # batch statistics would tie the images together
    apart = [
        rpn_losses(model, batch_of(model, item, synthetic=[drawn]))[0]
        for item, drawn in zip(items, [False, True], strict=True)
    ]
    mixed = batch_of(model, *items, synthetic=[False, True])
    together, scores = rpn_losses(model, mixed)
    real = 64  # num of the sampler; there are more anchors than that
    synthetic = int((assigned_anchors(model.rpn_head, scores, mixed, 1) > 0).sum())
    for name in ("loss_rpn_cls", "loss_rpn_bbox"):
        expected = (real * apart[0][name] + synthetic * apart[1][name]) / (real + synthetic)
        assert float(together[name]) == pytest.approx(float(expected), rel=1e-5), name


def test_an_object_weighs_as_much_as_on_a_real_image_where_all_samples_are_counted(config, items):
    model = model_of(config, ignore_background=True).eval()  # batch statistics would tie images together
    learned = model_of(config, ignore_background=True, normalise_by="learned").eval()
    real, synthetic = (
        losses_of(model, batch_of(model, *items, synthetic=[drawn, drawn], masked=True))
        for drawn in (False, True)
    )
    mean = losses_of(learned, batch_of(learned, *items, synthetic=[True, True], masked=True))
    for name in ("loss_rpn_bbox", "loss_bbox"):  # of objects alone on real images, too
        assert 0 < float(synthetic[name]) == pytest.approx(float(real[name]), rel=1e-5), name
        assert float(mean[name]) > 1.2 * float(real[name]), name
    for name in ("loss_rpn_cls", "loss_cls"):  # on real images of background besides
        assert 0 < float(synthetic[name]) < float(real[name]), name
        assert float(synthetic[name]) < float(mean[name]), name
    mixed = losses_of(model, batch_of(model, *items, synthetic=[False, True], masked=True))
    assert float(mixed["loss_bbox"]) == pytest.approx(float(real["loss_bbox"]), rel=1e-5)


def test_positives_may_take_the_places_of_negatives():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(40, 1)
    predicted = InstanceData(priors=anchors)
    labelled = InstanceData(bboxes=anchors[:1], labels=torch.zeros(1, dtype=torch.long))
    assigner = TASK_UTILS.build(dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5))
    usual = dict(type="RandomSampler", num=16, pos_fraction=0.25, add_gt_as_proposals=False)

    def positives(fill_with_positives: bool, synthetic: bool) -> int:
        sampler = dict(type="IncompleteSampler", sampler=usual, fill_with_positives=fill_with_positives)
        flag_instances(labelled, ignore_background=synthetic, masked=True)
        assigned = assigner.assign(predicted, labelled)
        return len(TASK_UTILS.build(sampler).sample(assigned, predicted, labelled).pos_inds)

    assert positives(False, synthetic=True) == positives(False, synthetic=False) == 4
    assert positives(True, synthetic=True) == 16 and positives(True, synthetic=False) == 4


# --- proposals ------------------------------------------------------------------------------------


def roi_losses(model: torch.nn.Module, batch: dict, background: torch.Tensor) -> tuple[dict, torch.Tensor]:
    """Losses of the second stage on the objects' own boxes and these others; labels of what it learned."""
    proposals = [
        InstanceData(bboxes=torch.cat([sample.gt_instances.bboxes, background]))
        for sample in batch["data_samples"]
    ]
    learned = []
    head = model.roi_head.bbox_head
    inner = head.loss
    head.loss = lambda *a, **k: (
        learned.append(k.get("labels", a[3] if len(a) > 3 else None)) or inner(*a, **k)
    )
    try:
        seed_everything(5)
        losses = model.roi_head.loss(model.extract_feat(batch["inputs"]), proposals, batch["data_samples"])
    finally:
        del head.loss
    return losses, learned[0]


FAR = torch.tensor([[0.0, 0.0, 3.0, 3.0], [60.0, 0.0, 63.0, 5.0]])
ELSEWHERE = torch.tensor([[0.0, 60.0, 2.0, 63.0], [58.0, 60.0, 63.0, 63.0]])


@pytest.mark.parametrize("synthetic", [True, False])
def test_background_proposals_teach_on_real_images_alone(config, items, synthetic):
    model = model_of(config, ignore_background=True)
    batch = batch_of(model, items[0], synthetic=[synthetic], masked=True)
    first, labels = roi_losses(model, batch, FAR)
    second, _ = roi_losses(model, batch, ELSEWHERE)
    same = {name: float(first[name]) == float(second[name]) for name in first if "loss" in name}
    assert (labels == len(CATEGORIES)).any() != synthetic
    assert same["loss_cls"] == synthetic and same["loss_bbox"]
    assert float(first["loss_mask"]) > 0


# --- masks ----------------------------------------------------------------------------------------


def gradients(model: torch.nn.Module, losses: dict) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    sum(losses.values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("ignore", [True, False])
def test_images_without_masks_give_the_mask_head_a_gradient_of_zero(config, items, ignore):
    settings = DetectorSettings(config=str(config), ignore_background=ignore)
    loaded = load_config(config, classes=len(CATEGORIES))
    model = initial_model(loaded, settings, 0, masks_missing=True).train()
    losses = losses_of(model, batch_of(model, *items, synthetic=[True, True]))
    assert "loss_mask" not in losses and all(torch.isfinite(value) for value in losses.values())
    found = gradients(model, losses)
    assert not [name for name, gradient in found.items() if gradient is None]
    masks = [gradient for name, gradient in found.items() if "mask_head" in name]
    assert masks and all((gradient == 0).all() for gradient in masks)
    assert (found["roi_head.bbox_head.fc_cls.weight"] != 0).any()


def test_the_mask_loss_of_a_mixed_batch_is_that_of_its_masked_images(config, items):
    model = model_of(config, ignore_background=True).eval()  # batch statistics would tie the images together
    alone, _ = roi_losses(model, batch_of(model, items[0], synthetic=[False]), FAR)
    mixed, _ = roi_losses(model, batch_of(model, *items, synthetic=[False, True]), FAR)
    both, _ = roi_losses(model, batch_of(model, *items, synthetic=[False, True], masked=True), FAR)
    assert float(mixed["loss_mask"]) == pytest.approx(float(alone["loss_mask"]), rel=1e-5)
    assert float(both["loss_mask"]) != pytest.approx(float(alone["loss_mask"]), rel=1e-3)


def test_synthetic_images_without_any_label_are_harmless(config, items):
    model = model_of(config, ignore_background=True)
    empty = [without_labels(item) for item in items]
    losses = losses_of(model, batch_of(model, *empty, synthetic=[True, True]))
    assert all(float(value) == 0 for value in losses.values()), losses
    assert losses.keys() == {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"}
    assert all(g is not None and (g == 0).all() for g in gradients(model, losses).values())


def cascade(config: Path) -> dict:
    """The tiny detector with a box head and a mask head for each of two stages."""
    model = load_config(config, classes=len(CATEGORIES)).model.to_dict()
    roi, rcnn = model["roi_head"], model["train_cfg"]["rcnn"]
    roi.update(type="CascadeRoIHead", num_stages=2, stage_loss_weights=[1, 0.5])
    for key in ("bbox_head", "mask_head"):
        roi[key] = [copy.deepcopy(roi[key]) for _ in range(2)]
    for head in roi["bbox_head"]:
        head["reg_class_agnostic"] = True
    model["train_cfg"]["rcnn"] = [copy.deepcopy(rcnn) for _ in range(2)]
    return model


def test_every_stage_of_a_cascade_leaves_background_and_masks_out(config, items):
    aware = make_aware(
        cascade(config), ignore_background=True, fill_with_positives=False, source="cascade.py"
    )
    model = build_model(aware).train()
    require_aware(model, "cascade.py")
    losses = losses_of(model, batch_of(model, *items, synthetic=[True, True]))
    assert {"s0.loss_cls", "s1.loss_cls"} <= losses.keys() and not [n for n in losses if "mask" in n]
    found = gradients(model, losses)
    assert all(gradient is not None for gradient in found.values())
    stock = build_model(cascade(config)).train()
    stock.load_state_dict(model.state_dict())
    batch = batch_of(model, *items, synthetic=[False, False])
    real, expected = losses_of(model, batch), losses_of(stock, batch)
    assert {k: float(v) for k, v in real.items()} == {k: float(v) for k, v in expected.items()}
    empty = [without_labels(item) for item in items]
    losses = losses_of(model, batch_of(model, *empty, synthetic=[True, True]))
    assert all(float(value) == 0 for value in losses.values()), losses
    assert all(g is not None and (g == 0).all() for g in gradients(model, losses).values())


def test_an_object_weighs_as_much_in_every_stage_of_a_cascade(config, items):
    found = {}
    for normalise_by in ("sampled", "learned"):
        seed_everything(0)
        aware = make_aware(
            cascade(config), ignore_background=True, normalise_by=normalise_by, source="cascade.py"
        )
        model = build_model(aware)
        model.init_weights()
        model.eval()  # batch statistics
        for synthetic in (False, True):
            batch = batch_of(model, *items, synthetic=[synthetic] * 2, masked=True)
            found[normalise_by, synthetic] = losses_of(model, batch)
    real, sampled, learned = found["sampled", False], found["sampled", True], found["learned", True]
    assert float(sampled["s0.loss_bbox"]) == pytest.approx(float(real["s0.loss_bbox"]), rel=1e-5)
    # Stages after the first see proposals of objects alone, and may take in fewer of them.
    assert 0.5 < float(sampled["s1.loss_bbox"]) / float(real["s1.loss_bbox"]) < 1.5
    for name in ("s0.loss_bbox", "s1.loss_bbox", "s0.loss_cls", "s1.loss_cls"):
        assert float(learned[name]) > 1.5 * float(sampled[name]) > 0, name


# --- one stage ------------------------------------------------------------------------------------


def dense(kind: str) -> dict:
    """A tiny one-stage detector."""
    head = dict(
        type=kind,
        num_classes=len(CATEGORIES),
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        norm_cfg=None,
        anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], scales=[2], strides=[8, 16, 32]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True),
        loss_bbox=dict(type="L1Loss") if kind == "RetinaHead" else dict(type="GIoULoss"),
    )  # fmt: skip
    assigners = {
        "RetinaHead": dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
        "ATSSHead": dict(type="ATSSAssigner", topk=9),
    }
    return dict(
        type="SingleStageDetector",
        data_preprocessor=dict(type="DetDataPreprocessor", mean=[127.5] * 3, std=[127.5] * 3),
        backbone=dict(type="ResNet", depth=18, base_channels=8, out_indices=(1, 2, 3), style="pytorch"),
        neck=dict(type="FPN", in_channels=[16, 32, 64], out_channels=8, num_outs=3),
        bbox_head=head,
        train_cfg=dict(assigner=assigners[kind], allowed_border=-1, pos_weight=-1, debug=False),
        test_cfg=dict(),
    )


@pytest.mark.parametrize("kind", ["RetinaHead", "ATSSHead"])
def test_a_dense_head_learns_no_background_from_synthetic_images(items, kind):
    aware = make_aware(dense(kind), ignore_background=True, fill_with_positives=True, source="dense.py")
    seed_everything(0)
    model = build_model(aware).train()
    model.init_weights()
    require_aware(model, "dense.py")

    def gradient(synthetic: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient (anchors, classes) of the logits, and which anchors belong to objects."""
        batch = batch_of(model, items[0], synthetic=[synthetic])
        outputs = model.bbox_head(model.extract_feat(batch["inputs"]))
        scores = [score.detach().requires_grad_() for score in outputs[0]]
        sample = batch["data_samples"][0]
        head = model.bbox_head
        losses = head.loss_by_feat(scores, *outputs[1:], [sample.gt_instances], [sample.metainfo])
        sum(losses["loss_cls"]).backward()
        sizes = [score.shape[-2:] for score in scores]
        anchors = head.prior_generator.grid_priors(sizes, device="cpu")
        labelled = InstanceData(bboxes=sample.gt_instances.bboxes, labels=sample.gt_instances.labels)
        counts = [] if kind == "RetinaHead" else [[len(level) for level in anchors]]
        found = head.assigner.assign(InstanceData(priors=torch.cat(anchors)), *counts, labelled)
        values = [s.grad[0].permute(1, 2, 0).reshape(-1, len(CATEGORIES)) for s in scores]
        return torch.cat(values), found.gt_inds > 0

    values, objects = gradient(synthetic=True)
    assert objects.any() and (values[~objects] == 0).all() and (values[objects] != 0).all()
    values, objects = gradient(synthetic=False)
    assert (values[~objects] != 0).any()


# --- refusals -------------------------------------------------------------------------------------


def test_parts_that_cannot_tell_synthetic_images_are_refused(config, items):
    model = load_config(config, classes=len(CATEGORIES)).model.to_dict()
    model["roi_head"]["type"] = "PISARoIHead"
    with pytest.raises(
        InputError, match=r"^a\.py: .* kind StandardRoIHead or CascadeRoIHead, not PISARoIHead"
    ):
        make_aware(model, ignore_background=False, fill_with_positives=False, source="a.py")


@pytest.mark.parametrize("switch", [{"fill_with_positives": True}, {"normalise_by": "learned"}])
def test_settings_of_ignored_background_without_ignoring_it_are_refused(switch):
    with pytest.raises(ValueError, match=f"{next(iter(switch))}: has a meaning with ignore_background alone"):
        DetectorSettings(config="a.py", **switch)


def test_masks_of_one_stage_detectors_are_refused():
    model = dense("RetinaHead") | dict(type="CondInst", mask_head=dict(type="CondInstMaskHead"))
    with pytest.raises(InputError, match=r"^a\.py: .* whose masks come from a RoI head, not CondInst$"):
        make_aware(model, ignore_background=False, fill_with_positives=False, source="a.py")


@pytest.mark.parametrize("kind", ["FCOSHead", "VFNetHead"])
def test_dense_heads_that_learn_from_background_nevertheless_are_refused(kind):
    model = dense("RetinaHead")
    model["bbox_head"] = dict(
        type=kind, num_classes=3, in_channels=8, feat_channels=8, norm_cfg=None, strides=[8, 16, 32]
    )
    aware = make_aware(model, ignore_background=True, fill_with_positives=False, source="a.py")
    with pytest.raises(InputError, match=rf"^a\.py: ignore_background does not reach {kind}, but RPNHead"):
        require_aware(build_model(aware), "a.py")
