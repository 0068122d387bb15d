"""The stand-in for mmcv's compiled operators against loops written from the definitions."""

import math

import numpy as np
import pytest
import torch

from gen4det.detection import mmcv_ext, mmcv_nms

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


# --- references -----------------------------------------------------------------------------------


def reference_nms(boxes, scores, threshold, offset):
    """Greedy suppression, one pair at a time, float32 like the compiled operator."""
    boxes = np.asarray(boxes, dtype=np.float32)
    order = sorted(range(len(scores)), key=lambda index: -float(scores[index]))  # sorted() is stable
    corner = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = np.clip(corner - np.maximum(boxes[:, None, :2], boxes[None, :, :2]) + offset, 0, None).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    with np.errstate(invalid="ignore"):
        suppresses = common / (area[:, None] + area[None, :] - common) > np.float32(threshold)

    kept = []
    for candidate in order:
        if not any(suppresses[better, candidate] for better in kept):
            kept.append(candidate)
    return kept


def reference_roi_align(feature, rois, size, scale, ratio, aligned):
    """RoIAlign sample by sample (Mask R-CNN, section 3; border rules of the common implementation)."""
    _, channels, height, width = feature.shape
    output = np.zeros((len(rois), channels, *size))

    def sample(plane, y, x):
        if y < -1 or y > height or x < -1 or x > width:
            return np.zeros(channels)
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        return (
            plane[:, y0, x0] * (y0 + 1 - y) * (x0 + 1 - x)
            + plane[:, y0, x1] * (y0 + 1 - y) * (x - x0)
            + plane[:, y1, x0] * (y - y0) * (x0 + 1 - x)
            + plane[:, y1, x1] * (y - y0) * (x - x0)
        )

    for index, (image, *box) in enumerate(rois):
        left, top, right, bottom = (value * scale - (0.5 if aligned else 0) for value in box)
        extent_y, extent_x = bottom - top, right - left
        if not aligned:
            extent_y, extent_x = max(extent_y, 1), max(extent_x, 1)
        bin_y, bin_x = extent_y / size[0], extent_x / size[1]
        count_y = ratio or max(0, math.ceil(bin_y))
        count_x = ratio or max(0, math.ceil(bin_x))
        for p in range(size[0]):
            for q in range(size[1]):
                samples = [
                    sample(
                        feature[int(image)],
                        top + p * bin_y + (i + 0.5) * bin_y / count_y,
                        left + q * bin_x + (j + 0.5) * bin_x / count_x,
                    )
                    for i in range(count_y)
                    for j in range(count_x)
                ]
                if samples:
                    output[index, :, p, q] = np.mean(samples, axis=0)
    return output


class RoIAlign(torch.autograd.Function):
    """The calls mmcv makes around the operator."""

    @staticmethod
    def forward(ctx, feature, rois, size, scale, ratio, aligned):
        ctx.save_for_backward(rois)
        ctx.shape = feature.shape
        ctx.options = dict(
            aligned_height=size[0], aligned_width=size[1], spatial_scale=scale, sampling_ratio=ratio,
            pool_mode=1, aligned=aligned,
        )  # fmt: skip
        output = feature.new_zeros((len(rois), feature.shape[1], *size))
        none = feature.new_zeros(0)
        mmcv_ext.roi_align_forward(feature, rois, output, none, none, **ctx.options)
        return output

    @staticmethod
    def backward(ctx, gradient):
        (rois,) = ctx.saved_tensors
        result = gradient.new_zeros(ctx.shape)
        none = gradient.new_zeros(0)
        mmcv_ext.roi_align_backward(gradient.contiguous(), rois, none, none, result, **ctx.options)
        return result, None, None, None, None, None


roi_align = RoIAlign.apply


def random_rois(rng, count, images, size):
    """Boxes of all sizes, some reaching beyond the image, in shuffled order of images."""
    corner = rng.uniform(-0.3 * size, size, (count, 2))
    extent = rng.uniform(0.5, 0.8 * size, (count, 2))
    owner = rng.integers(0, images, (count, 1))
    return torch.from_numpy(np.hstack([owner, corner, corner + extent]))


# --- nms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 40, 300])
def test_nms_equals_the_definition(count, offset, device, monkeypatch):
    monkeypatch.setattr(mmcv_nms, "_BLOCK", 64)
    rng = np.random.default_rng(count)
    corner, extent = rng.uniform(0, 60, (count, 2)), rng.uniform(0, 25, (count, 2))
    boxes = torch.tensor(np.hstack([corner, corner + extent]), dtype=torch.float32, device=device)
    scores = torch.tensor(rng.integers(0, 20, count) / 20, dtype=torch.float32, device=device)
    for threshold in (0.0, 0.3, 0.7, 1.0):
        kept = mmcv_ext.nms(boxes, scores, threshold, offset)
        assert kept.device.type == device and kept.dtype == torch.int64
        assert kept.tolist() == reference_nms(boxes.cpu(), scores.cpu(), threshold, offset)


def test_sets_of_boxes_are_suppressed_each_by_itself():
    rng = np.random.default_rng(2)
    boxes = torch.from_numpy(np.stack([random_rois(rng, 70, 1, 30)[:, 1:] for _ in range(3)])).float()
    kept = mmcv_nms.suppress(boxes, 0.4)
    for found, some in zip(kept, boxes, strict=True):
        expected = reference_nms(some, np.arange(70)[::-1], 0.4, 0)
        assert found.nonzero()[:, 0].tolist() == expected
    assert 0 < kept.float().mean() < 1


def test_chains_of_boxes_keep_every_other_one():
    """Each covers the next alone: whether one is kept hangs on all before it."""
    start = torch.arange(0, 300.0)[:, None]
    boxes = torch.cat([start, torch.zeros(300, 1), start + 2, torch.ones(300, 1)], dim=1)
    assert mmcv_ext.nms(boxes, -start[:, 0], 0.3).tolist() == list(range(0, 300, 2))
    assert mmcv_nms.suppress(boxes, 0.3).nonzero()[:, 0].tolist() == list(range(0, 300, 2))


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_of_boxes_in_places_of_their_own_equals_the_definition(offset, monkeypatch):
    """As mmdet shifts those of each category; among them boxes that touch, are inside out, or no numbers."""
    monkeypatch.setattr(mmcv_nms, "_BLOCK", 16)
    rng = np.random.default_rng(offset)
    count = 240
    corner, extent = rng.integers(0, 40, (count, 2)), rng.integers(-2, 25, (count, 2))
    shift = 65 * rng.integers(0, 6, (count, 1))
    boxes = np.hstack([corner, corner + extent]).astype(np.float32) + shift
    scores = rng.permutation(count) / count
    assert len(mmcv_nms._apart(boxes, offset)) >= 6
    broken = boxes.copy()
    broken[7, 2] = np.nan
    for places in (boxes, broken):
        for threshold in (0.0, 0.3, 0.7):
            found = mmcv_ext.nms(torch.tensor(places), torch.tensor(scores), threshold, offset)
            assert found.tolist() == reference_nms(places, scores, threshold, offset)


def test_nms_of_nothing():
    assert mmcv_ext.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []


def test_nms_keeps_what_overlaps_by_exactly_the_threshold():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])  # IoU is exactly one half
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ext.nms(boxes, scores, 0.5, 0).tolist() == [0, 1]
    assert mmcv_ext.nms(boxes, scores, 0.49, 0).tolist() == [0]


def test_nms_breaks_ties_by_position():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12]])
    assert mmcv_ext.nms(boxes, torch.tensor([0.5, 0.5, 0.5]), 0.5, 0).tolist() == [0, 2]


def test_nms_of_boxes_without_area():
    boxes = torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3], [0, 0, 9, 9]])
    assert mmcv_ext.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5, 0).tolist() == [0, 1, 2]


def test_nms_in_half_precision():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 900, (60, 2))
    boxes = torch.tensor(np.hstack([corner, corner + rng.uniform(200, 400, (60, 2))])).half()
    scores = torch.tensor(rng.permutation(60) / 64).half()
    expected = reference_nms(boxes.float(), scores.float(), 0.5, 0)  # areas beyond the range of float16
    assert mmcv_ext.nms(boxes, scores, 0.5, 0).tolist() == expected


# --- RoIAlign ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_roi_align_equals_the_definition(scale, ratio, aligned, device):
    rng = np.random.default_rng(7)
    feature = torch.from_numpy(rng.normal(size=(3, 2, 9, 13)))
    rois = random_rois(rng, 12, 3, 10 / scale)
    expected = reference_roi_align(feature.numpy(), rois.numpy(), (3, 4), scale, ratio, aligned)
    found = roi_align(feature.to(device), rois.to(device), (3, 4), scale, ratio, aligned)
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("order", ["one region per image", "shuffled"])
def test_roi_align_gradient_equals_finite_differences(order):
    rng = np.random.default_rng(3)
    feature = torch.from_numpy(rng.normal(size=(3, 2, 4, 5))).requires_grad_()
    rois = random_rois(rng, 3, 3, 8)
    if order == "one region per image":
        rois[:, 0] = torch.arange(3)
    for ratio, aligned in ((0, True), (2, False)):
        assert torch.autograd.gradcheck(
            lambda x, o=(ratio, aligned): roi_align(x, rois, (3, 2), 0.5, *o), feature, fast_mode=True
        )


@pytest.mark.parametrize("ratio", [0, 3])
def test_roi_align_gradient_is_the_transposed_product(ratio):
    """Regions of one to twenty samples in a bin, which share windows of one width, and some outside."""
    rng = np.random.default_rng(11)
    feature = torch.from_numpy(rng.normal(size=(3, 4, 17, 23))).requires_grad_()
    rois = torch.cat([random_rois(rng, 20, 3, side) for side in (2, 17, 60)])
    rois[::7, 1:] -= 30
    output = roi_align(feature, rois, (3, 5), 1.0, ratio, True)
    direction = torch.from_numpy(rng.normal(size=output.shape))
    (gradient,) = torch.autograd.grad(output, feature, direction)
    torch.testing.assert_close((gradient * feature).sum(), (output * direction).sum())
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("images", [6, 9])  # 9: the last three have no region
def test_roi_align_of_one_region_per_image_equals_the_general_path(images):
    rng = np.random.default_rng(5)
    feature = torch.from_numpy(rng.normal(size=(images, 1, 8, 8)))
    rois = random_rois(rng, 6, 6, 8)
    rois[:, 0] = torch.arange(6)
    together = roi_align(feature, rois, (4, 4), 1.0, 0, True)
    backwards = roi_align(feature, rois.flip(0), (4, 4), 1.0, 0, True).flip(0)
    torch.testing.assert_close(together, backwards)


def test_roi_align_in_pieces_equals_roi_align_at_once(monkeypatch):
    rng = np.random.default_rng(5)
    feature = torch.from_numpy(rng.normal(size=(2, 3, 8, 8))).requires_grad_()
    rois = random_rois(rng, 9, 2, 8)

    def both():
        output = roi_align(feature, rois, (4, 4), 1.0, 0, True)
        (gradient,) = torch.autograd.grad(output.square().sum(), feature)
        return output, gradient

    whole = both()
    monkeypatch.setattr(mmcv_ext, "_ROI_CHUNK_BYTES", 1)
    torch.testing.assert_close(both(), whole)


def test_roi_align_of_nothing():
    feature = torch.ones(2, 3, 8, 8, requires_grad=True)
    output = roi_align(feature, torch.zeros(0, 5), (7, 7), 1.0, 0, True)
    assert output.shape == (0, 3, 7, 7)
    output.sum().backward()
    assert not feature.grad.any()


def test_roi_align_outside_the_image_and_of_negative_size_is_zero():
    feature = torch.ones(1, 1, 8, 8)
    rois = torch.tensor([[0.0, 50, 50, 60, 60], [0, 6, 6, 2, 2], [0, 3, 3, 3, 3], [0, math.nan, 1, 5, 5]])
    assert not roi_align(feature, rois, (2, 2), 1.0, 0, True).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_align_in_half_precision(dtype):
    rng = np.random.default_rng(1)
    feature = torch.from_numpy(rng.normal(size=(2, 4, 16, 16))).to(dtype).requires_grad_()
    rois = random_rois(rng, 12, 2, 16).to(dtype)
    output = roi_align(feature, rois, (7, 7), 1.0, 0, True)
    exact = roi_align(feature.detach().double(), rois.double(), (7, 7), 1.0, 0, True)
    assert output.dtype == dtype
    torch.testing.assert_close(output.double(), exact, atol=0.02, rtol=0.02)
    output.sum().backward()
    assert feature.grad.dtype == dtype and feature.grad.isfinite().all()


def test_max_pooling_is_refused_in_one_sentence():
    none = torch.zeros(0)
    with pytest.raises(NotImplementedError, match="'roi_align' with max pooling .* install mmcv"):
        mmcv_ext.roi_align_forward(
            torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), torch.zeros(1, 1, 2, 2), none, none,
            aligned_height=2, aligned_width=2, spatial_scale=1.0, sampling_ratio=0, pool_mode=0, aligned=True,
        )  # fmt: skip


# --- torchvision's kernels ------------------------------------------------------------------------


@pytest.fixture
def torchvision(monkeypatch):
    """Its operators take over on the CPU, too, whose kernels obey the same signatures as the GPU's."""
    kernels = mmcv_ext._torchvision()
    if kernels is None:
        pytest.skip("torchvision cannot be imported here")
    monkeypatch.setattr(mmcv_ext, "_kernels", lambda device: kernels)


def test_torchvision_serves_gpus_only_and_only_where_it_can_be_imported(monkeypatch):
    monkeypatch.setattr(mmcv_ext, "_torchvision", lambda: "kernels")
    assert mmcv_ext._kernels(torch.device("cuda:1")) == "kernels"
    assert mmcv_ext._kernels(torch.device("cpu")) is None
    monkeypatch.setattr(mmcv_ext, "_torchvision", lambda: None)
    assert mmcv_ext._kernels(torch.device("cuda")) is None


def test_what_ran_is_said_in_words(monkeypatch):
    if not mmcv_ext.install():
        pytest.skip("mmcv has its compiled operators")
    assert mmcv_ext.description("cpu") == "stand-in for mmcv's operators"
    monkeypatch.setattr(mmcv_ext, "_torchvision", lambda: None)
    assert mmcv_ext.description("cuda") == "stand-in for mmcv's operators"
    monkeypatch.setattr(mmcv_ext, "_torchvision", lambda: "kernels")
    monkeypatch.setattr(mmcv_ext.importlib.metadata, "version", lambda name: {"torchvision": "0.1"}[name])
    assert mmcv_ext.description("cuda") == "stand-in for mmcv's operators, with torchvision 0.1"
    monkeypatch.setattr(mmcv_ext, "install", lambda: False)
    assert mmcv_ext.description("cuda") == "compiled operators of mmcv"


@pytest.mark.parametrize("count", [1, 40, 300])
def test_torchvisions_nms_is_the_definition(count, torchvision):
    rng = np.random.default_rng(count)
    corner, extent = rng.uniform(0, 60, (count, 2)), rng.uniform(0, 25, (count, 2))
    boxes = torch.tensor(np.hstack([corner, corner + extent]), dtype=torch.float32)
    scores = torch.tensor(rng.integers(0, 20, count) / 20, dtype=torch.float32)
    for threshold in (0.0, 0.3, 0.7):
        for offset in (0, 1):  # torchvision knows no offset
            found = mmcv_ext.nms(boxes, scores, threshold, offset).tolist()
            assert found == reference_nms(boxes, scores, threshold, offset)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_torchvisions_roi_align_is_the_definition(aligned, ratio, torchvision):
    rng = np.random.default_rng(1)
    feature = torch.from_numpy(rng.normal(size=(3, 2, 9, 11))).requires_grad_()
    rois = random_rois(rng, 12, 3, 20)
    expected = reference_roi_align(feature.detach().numpy(), rois.numpy(), (3, 4), 0.5, ratio, aligned)
    found = roi_align(feature, rois, (3, 4), 0.5, ratio, aligned)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.square().sum(), feature)
    output, own = torch.zeros(12, 2, 3, 4, dtype=torch.float64), torch.zeros_like(feature)
    none = torch.zeros(0)
    options = dict(
        aligned_height=3,
        aligned_width=4,
        spatial_scale=0.5,
        sampling_ratio=ratio,
        pool_mode=1,
        aligned=aligned,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmcv_ext, "_kernels", lambda device: None)
        mmcv_ext.roi_align_forward(feature.detach(), rois, output, none, none, **options)
        mmcv_ext.roi_align_backward(2 * output, rois, none, none, own, **options)
    torch.testing.assert_close(gradient, own)


# --- deformable attention -------------------------------------------------------------------------


def attention_inputs(dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    shapes = torch.tensor([[4, 5], [2, 3]])
    value = torch.randn(2, 26, 2, 3, generator=draw, dtype=dtype)
    locations = torch.rand(2, 7, 2, 2, 4, 2, generator=draw, dtype=dtype) * 1.4 - 0.2  # some outside
    weights = torch.rand(2, 7, 2, 8, generator=draw, dtype=dtype).softmax(-1).view(2, 7, 2, 2, 4)
    return [x.requires_grad_() for x in (value, locations, weights)], shapes


def test_deformable_attention_on_a_gpu_needs_no_compiled_operator():
    """mmcv calls this function for CUDA tensors and no other; here it gets CPU tensors, on the same path."""
    if not mmcv_ext.install():
        pytest.skip("mmcv has its compiled operators")
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    (value, locations, weights), shapes = attention_inputs()
    start = torch.tensor([0, 20])
    found = MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    assert found.shape == (2, 7, 6)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    wanted = torch.autograd.grad(expected.square().sum(), (value, locations, weights))
    gradients = torch.autograd.grad(found.square().sum(), (value, locations, weights))
    for gradient, reference in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_deformable_attention_is_the_sum_of_bilinear_samples():
    """Deformable DETR, equation 3, one query, head and point at a time."""
    (value, locations, weights), shapes = attention_inputs()
    value, locations, weights = value.detach(), locations.detach(), weights.detach()
    found = mmcv_ext.ms_deform_attn_forward(value, shapes, None, locations, weights, im2col_step=64)
    expected = torch.zeros_like(found)
    for image, query, head, level, point in np.ndindex(2, 7, 2, 2, 4):
        height, width = shapes[level].tolist()
        plane = value[image, 20 * level : 20 * level + height * width, head].view(height, width, 3)
        x = float(locations[image, query, head, level, point, 0]) * width - 0.5
        y = float(locations[image, query, head, level, point, 1]) * height - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    weight = weights[image, query, head, level, point] * share
                    expected[image, query, 3 * head : 3 * head + 3] += weight * plane[row, column]
    torch.testing.assert_close(found, expected)


# --- registration -----------------------------------------------------------------------------------


def test_mmcv_ops_run_on_what_is_installed():
    """Holds with compiled operators, too: then they are what is compared with the reference."""
    mmcv_ext.install()
    import mmcv.ops

    rng = np.random.default_rng(2)
    feature = torch.from_numpy(rng.normal(size=(2, 3, 10, 10))).float()
    rois = random_rois(rng, 8, 2, 10).float()
    found = mmcv.ops.RoIAlign((3, 3), 1.0, 0)(feature, rois)
    expected = reference_roi_align(feature.numpy(), rois.numpy(), (3, 3), 1.0, 0, True)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)

    boxes, scores, labels = rois[:, 1:], torch.rand(8), torch.tensor([0, 1] * 4)
    kept, indices = mmcv.ops.batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.3})
    by_class = [
        chosen[reference_nms(boxes[chosen], scores[chosen], 0.3, 0)]
        for chosen in (torch.tensor([0, 2, 4, 6]), torch.tensor([1, 3, 5, 7]))
    ]
    assert sorted(indices.tolist()) == sorted(torch.cat(by_class).tolist())
    torch.testing.assert_close(kept[:, 4], scores[indices])


def test_a_missing_operator_says_its_name():
    if not mmcv_ext.install():
        pytest.skip("mmcv has its compiled operators")
    import mmcv.ops

    with pytest.raises(NotImplementedError, match="mmcv operator 'softnms' is not part of the stand-in"):
        mmcv.ops.soft_nms(torch.zeros(1, 4), torch.zeros(1))


def test_compiled_operators_win(monkeypatch):
    monkeypatch.delitem(mmcv_ext.sys.modules, mmcv_ext.NAME, raising=False)
    monkeypatch.setattr(mmcv_ext.importlib.util, "find_spec", lambda name: object())
    assert mmcv_ext.install() is False
    assert mmcv_ext.NAME not in mmcv_ext.sys.modules
