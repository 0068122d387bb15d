"""Labels of some categories only: what an image does not speak of has a gradient of exactly zero."""

import copy
from pathlib import Path

import pytest
import torch
from test_background_ignore import (
    FAR,
    assigned_anchors,
    cascade,
    dense,
    flat,
    gradients,
    losses_of,
    model_of,
    roi_losses,
    rpn_losses,
)
from tiny_detector import CATEGORIES, tiny_config, tiny_dataset, tiny_synthetic

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import write_json
from gen4det.data.label_sets import LabelSet
from gen4det.detection.completeness import make_aware, require_aware
from gen4det.detection.datasets import DetectionDataset, Source, seed_everything
from gen4det.detection.detectors import build_model, load_config
from gen4det.detection.samplers import Draw
from gen4det.detection.settings import Completeness, DetectorSettings, LabelSettings
from gen4det.detection.training import initial_model, load_sources

PIPELINE = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
]
SQUARE, DISC, RING = range(3)
"""Labels, in the order of the ids 3, 7, 20."""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return tiny_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data"), [[3, 7], [7, 3], [3, 20]])


def items_of(dataset, completeness: Completeness) -> list[dict]:
    train = dataset.train
    source = Source("tiny", train.annotations_path, train.labels(), train.images, completeness=completeness)
    data = DetectionDataset([source], CATEGORIES, PIPELINE, masks=True)
    return [data[Draw(index, 0)] for index in range(len(data))]


BASE = Completeness(categories=("square", "disc"))


def partial_model(config: Path, **switches: object) -> torch.nn.Module:
    settings = DetectorSettings(config=str(config), labels=LabelSettings(real=BASE), **switches)
    loaded = load_config(config, classes=len(CATEGORIES))
    return initial_model(loaded, settings, 0, categories_missing=True).train()


def batch_of(model: torch.nn.Module, *items: dict) -> dict:
    from mmengine.dataset import pseudo_collate

    return model.data_preprocessor(pseudo_collate(copy.deepcopy(list(items))), training=True)


def logits_gradient(model: torch.nn.Module, batch: dict, head: torch.nn.Module | None = None) -> torch.Tensor:
    """Gradient of the classifier's logits, (regions, columns), with proposals of objects and background."""
    head = head or model.roi_head.bbox_head
    seen = []
    hook = head.register_forward_hook(lambda module, _, out: seen.append(out[0]) or out[0].retain_grad())
    try:
        losses, _ = roi_losses(model, batch, FAR)
    finally:
        hook.remove()
    sum(value for name, value in losses.items() if name.endswith("loss_cls")).backward()
    return seen[0].grad


# --- real images that know base categories only -----------------------------------------------------


def test_labels_of_other_categories_are_left_out(dataset):
    full, base = items_of(dataset, Completeness()), items_of(dataset, BASE)
    assert [item["data_samples"].gt_instances.labels.tolist().count(RING) for item in full] == [0, 0, 1]
    labels = [item["data_samples"].gt_instances.labels.tolist() for item in base]
    assert all(RING not in found for found in labels) and labels[2] == [SQUARE]
    assert all(item["data_samples"].gt_instances.get("annotated") == [SQUARE, DISC] for item in base)
    assert all(item["data_samples"].gt_instances.get("annotated") is None for item in full)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_columns_of_other_categories_have_a_gradient_of_exactly_zero(config, dataset, sigmoid):
    model = partial_model(config)
    if sigmoid:
        model.roi_head.bbox_head.loss_cls.use_sigmoid = True
        from mmdet.models.losses.cross_entropy_loss import binary_cross_entropy

        model.roi_head.bbox_head.loss_cls.cls_criterion = binary_cross_entropy
    gradient = logits_gradient(model, batch_of(model, *items_of(dataset, BASE)[:2]))
    assert (gradient[:, RING] == 0).all()
    assert (gradient[:, [SQUARE, DISC, 3]] != 0).any(0).all()
    assert torch.isfinite(gradient).all()


def test_parameters_of_other_categories_have_a_gradient_of_exactly_zero(config, dataset):
    model = partial_model(config)
    found = gradients(model, losses_of(model, batch_of(model, *items_of(dataset, BASE)[:2])))
    assert all(gradient is not None for gradient in found.values())
    for name in ("fc_cls.weight", "fc_cls.bias"):
        gradient = found[f"roi_head.bbox_head.{name}"]
        assert (gradient[RING] == 0).all() and (gradient[DISC] != 0).any()
    boxes = found["roi_head.bbox_head.fc_reg.weight"].reshape(len(CATEGORIES), 4, -1)
    assert (boxes[RING] == 0).all() and (boxes[SQUARE] != 0).any()
    masks = found["roi_head.mask_head.conv_logits.weight"]
    assert (masks[RING] == 0).all() and (masks[SQUARE] != 0).any()


def test_the_classifier_compares_what_the_image_speaks_of(config, dataset):
    """The loss is that of a softmax over declared categories and background."""
    model = partial_model(config)
    batch = batch_of(model, items_of(dataset, BASE)[0])
    scores = []
    hook = model.roi_head.bbox_head.register_forward_hook(lambda module, _, out: scores.append(out[0]))
    losses, labels = roi_losses(model, batch, FAR)
    hook.remove()
    columns = torch.tensor([SQUARE, DISC, 3])
    place = {int(column): number for number, column in enumerate(columns)}
    wanted = torch.tensor([place[int(label)] for label in labels])
    assert 2 in wanted and (wanted < 2).any()
    expected = torch.nn.functional.cross_entropy(scores[0][:, columns], wanted)
    assert losses["loss_cls"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_region_proposals_learn_no_background_from_them(config, dataset):
    model = partial_model(config, normalise_by="learned")
    batch = batch_of(model, items_of(dataset, BASE)[0])
    losses, scores = rpn_losses(model, batch)
    losses["loss_rpn_cls"].backward()
    gradient = flat([score.grad for score in scores], 0)
    objects = assigned_anchors(model.rpn_head, scores, batch, 0) > 0
    assert objects.any() and (gradient[~objects] == 0).all() and (gradient[objects] != 0).all()


def test_in_one_batch_each_image_speaks_for_itself(config, dataset):
    """A drawn image of all categories beside a real one of two: only the latter's columns are silent."""
    model = partial_model(config).eval()  # batch statistics would tie the images together
    base, complete = items_of(dataset, BASE)[0], items_of(dataset, Completeness())[2]
    gradient = logits_gradient(model, batch_of(model, base, complete))
    count = len(base["data_samples"].gt_instances) * 2 + len(FAR)  # with the objects' own boxes
    assert (gradient[:count, RING] == 0).all() and (gradient[count:, RING] != 0).all()


def test_complete_labels_teach_as_mmdet_has_it(config, dataset):
    stock, aware = model_of(config), partial_model(config)
    items = items_of(dataset, Completeness())
    expected = losses_of(stock, batch_of(stock, *items))
    found = losses_of(aware, batch_of(aware, *items))
    assert {k: float(v) for k, v in found.items()} == {k: float(v) for k, v in expected.items()}


def test_every_stage_of_a_cascade_is_silent_where_the_image_is(config, dataset):
    model = build_model(
        make_aware(cascade(config), ignore_background=False, categories_missing=True, source="c.py")
    ).train()
    seed_everything(0)
    model.init_weights()
    require_aware(model, "c.py")
    losses = losses_of(model, batch_of(model, *items_of(dataset, BASE)[:2]))
    found = gradients(model, losses)
    for stage in range(2):
        gradient = found[f"roi_head.bbox_head.{stage}.fc_cls.weight"]
        assert (gradient[RING] == 0).all() and (gradient[SQUARE] != 0).any()


# --- drawn images: what each declares ---------------------------------------------------------------


def test_each_drawn_image_declares_its_categories(config, dataset, tmp_path):
    path = tiny_synthetic(tmp_path / "drawn", [[3, 7], [20]])
    data = read_json(path, "a set")
    data["info"] |= {"labels": {"categories": "image"}}
    for image, ids in zip(data["images"], ([3], [7, 20]), strict=True):
        image["annotated_category_ids"] = ids
    write_json(path, data)
    sources, categories = load_sources(dataset, [path])
    assert [source.completeness.categories for source in sources] == ["all", "image"]
    drawn = DetectionDataset(sources[1:], categories, PIPELINE, masks=True)
    assert drawn.categories_missing
    items = [drawn[Draw(index, 0)] for index in range(2)]
    instances = [item["data_samples"].gt_instances for item in items]
    assert [labels.labels.tolist() for labels in instances] == [[SQUARE], [RING]]
    assert [labels.get("annotated") for labels in instances] == [[SQUARE], [DISC, RING]]
    model = partial_model(config).eval()
    gradient = logits_gradient(model, batch_of(model, *items))
    first = 2 * len(instances[0]) + len(FAR)
    assert (gradient[:first, [DISC, RING]] == 0).all() and (gradient[first:, SQUARE] == 0).all()
    assert (gradient[:first, SQUARE] != 0).all() and (gradient[first:, [DISC, RING]] != 0).all()


def test_settings_go_before_what_a_set_says_of_itself(dataset, tmp_path):
    path = tiny_synthetic(tmp_path / "drawn", [[3, 7], [20]])
    data = read_json(path, "a set")
    data["info"] |= {"labels": {"categories": ["disc"], "masks": False}}
    write_json(path, data)
    assert load_sources(dataset, [path])[0][1].completeness == Completeness(categories=("disc",), masks=False)
    labels = LabelSettings(synthetic=Completeness(categories=("ring",)))
    detector = DetectorSettings(config="a.py", labels=labels, ignore_background=True)
    real, drawn = load_sources(dataset, [path], detector=detector)[0]
    assert real.completeness == Completeness()
    assert drawn.completeness == Completeness(background="ignore", categories=("ring",))


# --- refusals ---------------------------------------------------------------------------------------


def test_declarations_that_fit_nothing_are_refused(dataset, tmp_path):
    with pytest.raises(InputError, match=r"train\.json: labels are declared for 'disk', .*mean 'disc'"):
        items_of(dataset, Completeness(categories=("disk",)))
    with pytest.raises(InputError, match=r"train\.json: image 1: annotated_category_ids is None; expected"):
        items_of(dataset, Completeness(categories="image"))
    path = tiny_synthetic(tmp_path / "drawn", [[3]])
    data = read_json(path, "a set")
    data["info"]["labels"] = {"catgories": "all"}
    write_json(path, data)
    with pytest.raises(InputError, match=r"annotations\.json: info\.labels: catgories: unknown key"):
        load_sources(dataset, [path])


def test_detectors_without_region_proposals_are_refused():
    with pytest.raises(InputError, match=r"^d\.py: labels of some categories alone need a detector with reg"):
        make_aware(dense("RetinaHead"), ignore_background=False, categories_missing=True, source="d.py")


# --- novel categories: what marks a set speaks, and a classifier of independent categories -------------


def test_base_categories_are_those_that_the_annotations_call_so(dataset):
    """Never a path: the released code of InstaGen looks for data/coco/ in one."""
    train = dataset.train
    marked = train.load()
    for category in marked["categories"]:
        category["split"] = "novel" if category["id"] == 20 else "base"
    base = Completeness(categories="base")
    labels = LabelSet.of(marked, "/elsewhere/a.json")
    source = Source("x", Path("/elsewhere/a.json"), labels, train.images, completeness=base)
    items = DetectionDataset([source], CATEGORIES, PIPELINE, masks=True)
    assert items[Draw(0, 0)]["data_samples"].gt_instances.get("annotated") == [SQUARE, DISC]
    with pytest.raises(InputError, match="none is called base; train on a subset with labels: base"):
        items_of(dataset, base)


def test_drawn_images_teach_proposals_background_if_told_so(config, dataset):
    told = BASE.model_copy(update={"proposals": "background"})
    model = partial_model(config)
    batch = batch_of(model, items_of(dataset, told)[0])
    losses, scores = rpn_losses(model, batch)
    losses["loss_rpn_cls"].backward()
    gradient = flat([score.grad for score in scores], 0)
    objects = assigned_anchors(model.rpn_head, scores, batch, 0) > 0
    assert (gradient[~objects] != 0).any() and (gradient[objects] != 0).any()
    assert (logits_gradient(model, batch)[:, RING] == 0).all()


def sigmoid_config(folder: Path) -> Path:
    miniature = Path(__file__).parents[2] / "config" / "detectors" / "miniature_faster_rcnn_sigmoid.py"
    path = folder / "sigmoid.py"
    path.write_text(f"_base_ = {str(miniature)!r}\n")
    return path


def test_a_sigmoid_classifier_has_no_background_and_says_probabilities(tmp_path):
    loaded = load_config(sigmoid_config(tmp_path), classes=3)
    head = initial_model(loaded, DetectorSettings(config="a.py"), 0).roi_head.bbox_head
    assert head.fc_cls.out_features == 3
    scores = torch.tensor([[2.0, -1.0, 0.5], [-9.0, -9.0, -9.0]])
    found = head.loss_cls.get_activation(scores)
    torch.testing.assert_close(found[:, :3], scores.sigmoid())
    assert (found[:, 3] == 0).all()
    labels = torch.tensor([0, 3])  # the last is background
    loss = head.loss_cls(scores, labels, torch.ones(2), avg_factor=2)
    target = torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores, target, reduction="sum") / 2
    torch.testing.assert_close(loss, expected)
    assert float(head.fc_cls(torch.zeros(1, 256)).sigmoid().mean()) == pytest.approx(0.01, abs=1e-3)


def test_a_sigmoid_detector_is_silent_about_other_categories(tmp_path, dataset):
    loaded = load_config(sigmoid_config(tmp_path), classes=len(CATEGORIES))
    settings = DetectorSettings(config="a.py", labels=LabelSettings(real=BASE))
    model = initial_model(loaded, settings, 0, categories_missing=True).train()
    gradient = logits_gradient(model, batch_of(model, *items_of(dataset, BASE)[:2]))
    assert gradient.shape[1] == 3
    assert (gradient[:, RING] == 0).all() and (gradient[:, [SQUARE, DISC]] != 0).any(0).all()
