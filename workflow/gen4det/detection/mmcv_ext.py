"""Stand-in for the compiled operators of mmcv (`mmcv._ext`).

mmcv's Python package imports without its compiled extension, `mmcv.ops` does not. `install` offers the few
operators that our detectors call, written with tensor operations so that they run wherever torch does,
under the module name mmcv looks for. A compiled extension always wins: then nothing is installed. On a GPU
torchvision's kernels come next, where torchvision can be imported.

Every other operator name resolves to a function that says, when it is called, which operator is missing.
"""

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gen4det.detection import mmcv_nms
from gen4det.detection.mmcv_attention import ms_deform_attn_backward, ms_deform_attn_forward

NAME = "mmcv._ext"
_ROI_CHUNK_BYTES = 64 * 2**20  # bound on the intermediate tensors of RoIAlign


class _Operators(types.ModuleType):
    """Module in which any operator name exists, as mmcv checks when it is imported."""

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise NotImplementedError(
                f"mmcv operator '{name}' is not part of the stand-in; "
                "install mmcv with its compiled operators"
            )

        return missing


def install() -> bool:
    """Register the stand-in if mmcv has no compiled operators. Call before `mmcv.ops` is imported.

    Returns:
        Whether the stand-in is in use.
    """
    if NAME in sys.modules:
        return isinstance(sys.modules[NAME], _Operators)
    if importlib.util.find_spec(NAME) is not None:
        return False
    operators = _Operators(NAME, doc=__doc__)
    operators.__spec__ = importlib.machinery.ModuleSpec(NAME, loader=None)  # others look for it, too
    operators.nms = nms
    operators.roi_align_forward = roi_align_forward
    operators.roi_align_backward = roi_align_backward
    operators.ms_deform_attn_forward = ms_deform_attn_forward
    operators.ms_deform_attn_backward = ms_deform_attn_backward
    sys.modules[NAME] = operators
    return True


def description(device: str) -> str:
    """Which operators detectors run on a device ("cpu" or "cuda"), for run records."""
    if not install():
        return "compiled operators of mmcv"
    if _kernels(torch.device(device)) is None:
        return "stand-in for mmcv's operators"
    return f"stand-in for mmcv's operators, with torchvision {importlib.metadata.version('torchvision')}"


def _kernels(device: torch.device):
    """torchvision's operators, for a GPU and where torchvision can be imported; else None.

    On the CPU the operators below are as fast, and results do not depend on what happens to be installed.
    """
    return _torchvision() if device.type == "cuda" else None


@functools.cache
def _torchvision():
    try:
        import torchvision  # noqa: F401  (registers its operators)
    except (ImportError, OSError, RuntimeError):  # absent, or built for another torch
        return None
    return torch.ops.torchvision


# --- non-maximum suppression --------------------------------------------------------------------


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,); equal scores keep the order of the input.
        iou_threshold: a box goes when its IoU with a better kept box is greater than this.
        offset: 0, or 1 where x2 and y2 name the last pixel inside the box.

    Returns:
        Indices of the kept boxes, best score first, int64.
    """
    if offset == 0 and (kernels := _kernels(boxes.device)):
        return _nms_torchvision(kernels, boxes, scores, iou_threshold)
    return mmcv_nms.greedy(boxes, scores, iou_threshold, offset)


def _nms_torchvision(kernels, boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    return kernels.nms(boxes.detach().to(dtype), scores.detach().to(dtype), iou_threshold)


# --- RoIAlign -----------------------------------------------------------------------------------
#
# Average pooling over a grid of bilinear samples is separable: bin (p, q) of a region is the sum over pixels
# (y, x) of R[p, y] * C[q, x] * feature[y, x], where row p of R collects the bilinear weights of that bin's
# sampling rows, and C those of the columns. The samples of a bin lie at most a pixel apart as a rule, so
# that a row of R or C has a few weights next to each other: a window. A bin is then a weighted sum of the few
# pixels in two windows, one lookup for the bins of all regions and images, and the gradient a product with
# the same sparse matrix transposed. Targets of masks have one channel and one region in each image, and there
# two small dense products are faster. Nothing depends on the order of threads.


def roi_align_forward(
    feature: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al. 2017, Mask R-CNN, section 3) with the signature of mmcv's operator.

    Args:
        feature: (N, C, H, W), float16, bfloat16, float32 or float64.
        rois: (R, 5) as image index, x1, y1, x2, y2 in image pixels. A region of negative size gives zeros.
        output: (R, C, aligned_height, aligned_width), filled in place.
        argmax_y, argmax_x: unused, they belong to max pooling.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and axis; 0 takes as many as the bin has pixels, rounded up.
        pool_mode: 1, average.
        aligned: shift by half a pixel, so that pixel centres lie at .5.

    Raises:
        NotImplementedError: max pooling.
    """
    _require_average(pool_mode)
    if output.numel() == 0:
        return
    dtype = torch.promote_types(feature.dtype, torch.float32)
    if kernels := _kernels(feature.device):
        size = (aligned_height, aligned_width)
        arguments = (spatial_scale, *size, sampling_ratio, aligned)
        output.copy_(kernels.roi_align(feature.to(dtype), rois.to(dtype), *arguments))
        return
    size = (aligned_height, aligned_width)
    windows = _windows(rois.to(dtype), feature.shape[2:], size, spatial_scale, sampling_ratio, aligned)
    if _one_region_per_image(rois):
        for piece, down, across in _planes(windows, feature):
            plane = feature[piece].to(dtype)
            output[piece] = (down @ plane @ across.transpose(2, 3)).to(output.dtype)
        return
    pixels = feature.permute(0, 2, 3, 1).to(dtype).reshape(-1, feature.shape[1])
    for piece, index, weights in _taps(rois, windows, feature.shape[2:]):
        bins = functional.embedding_bag(index, pixels, per_sample_weights=weights, mode="sum")
        output[piece] = bins.view(-1, *size, feature.shape[1]).permute(0, 3, 1, 2).to(output.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward` with respect to the feature.

    Args:
        grad_output: (R, C, aligned_height, aligned_width).
        grad_input: (N, C, H, W) of zeros, filled in place. The others are as in the forward pass.
    """
    _require_average(pool_mode)
    if grad_output.numel() == 0:
        return
    dtype = torch.promote_types(grad_output.dtype, torch.float32)
    if kernels := _kernels(grad_output.device):
        where = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
        grad_input += kernels._roi_align_backward(grad_output.to(dtype), rois.to(dtype), *where)
        return
    size = (aligned_height, aligned_width)
    windows = _windows(rois.to(dtype), grad_input.shape[2:], size, spatial_scale, sampling_ratio, aligned)
    if _one_region_per_image(rois):
        for piece, down, across in _planes(windows, grad_input):
            grad_input[piece] += (down.transpose(2, 3) @ grad_output[piece].to(dtype) @ across).to(grad_input)
        return
    images, channels, height, width = grad_input.shape
    total = torch.zeros((images * height * width, channels), dtype=dtype, device=grad_output.device)
    for piece, index, weights in _taps(rois, windows, (height, width)):
        bins = grad_output[piece].permute(0, 2, 3, 1).to(dtype).reshape(-1, channels)
        used = weights.flatten().nonzero()[:, 0]  # many regions need less than the widest window
        places = torch.stack([index.flatten()[used], used // index.shape[1]])
        spread = torch.sparse_coo_tensor(
            places, weights.flatten()[used], (len(total), len(bins)), check_invariants=False
        )
        total.addmm_(spread, bins)
    grad_input += total.view(images, height, width, channels).permute(0, 3, 1, 2).to(grad_input.dtype)


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "mmcv operator 'roi_align' with max pooling is not part of the stand-in; "
            "install mmcv with its compiled operators"
        )


def _one_region_per_image(rois: Tensor) -> bool:
    """Whether region k lies in image k, of more than one, as targets of masks do."""
    return len(rois) > 1 and torch.equal(rois[:, 0].long().cpu(), torch.arange(len(rois)))


class _Windows(NamedTuple):
    """The pixels of one axis that each bin reads."""

    index: Tensor
    """(R, bins, T) int64, inside the feature."""
    weights: Tensor
    """(R, bins, T), zero where a window is wider than its bin needs."""

    def dense(self, pixels: int) -> Tensor:
        """Weights of all pixels of the axis, (R, bins, pixels)."""
        return self.weights.new_zeros((*self.weights.shape[:2], pixels)).scatter_add_(2, *self)


def _pieces(count: int, bytes_of_each: int) -> Iterator[slice]:
    """Regions that are computed together."""
    limit = max(1, _ROI_CHUNK_BYTES // bytes_of_each)
    return (slice(start, min(start + limit, count)) for start in range(0, count, limit))


def _planes(windows: tuple[_Windows, _Windows], feature: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Dense weights of the regions of a slice: down (regions, 1, bins, H), across (regions, 1, bins, W)."""
    down, across = windows
    channels, height, width = feature.shape[1:]
    for piece in _pieces(len(down.index), channels * height * width * down.weights.element_size()):
        yield (
            piece,
            _Windows(down.index[piece], down.weights[piece]).dense(height)[:, None],
            _Windows(across.index[piece], across.weights[piece]).dense(width)[:, None],
        )


def _taps(
    rois: Tensor, windows: tuple[_Windows, _Windows], feature_size: tuple[int, int]
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Which pixels of all images the bins of a slice of regions read, and with which weights.

    Yields:
        Slice; index (regions * bins, taps) int64 into the pixels of all images; weights of its shape.
    """
    down, across = windows
    height, width = feature_size
    rows = (rois[:, 0].long()[:, None, None] * height + down.index) * width
    taps = down.index.shape[2] * across.index.shape[2]
    each = down.index.shape[1] * across.index.shape[1] * taps * (8 + down.weights.element_size())
    for piece in _pieces(len(rois), each):
        index = rows[piece, :, None, :, None] + across.index[piece, None, :, None, :]
        weights = down.weights[piece, :, None, :, None] * across.weights[piece, None, :, None, :]
        yield piece, index.reshape(-1, taps), weights.reshape(-1, taps)


def _windows(
    rois: Tensor,
    feature_size: tuple[int, int],
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[_Windows, _Windows]:
    """Windows of the bins of each region: (down, across)."""
    shift = 0.5 if aligned else 0.0
    windows = []
    for axis, pixels, bins in ((2, feature_size[0], output_size[0]), (1, feature_size[1], output_size[1])):
        start = rois[:, axis] * spatial_scale - shift
        extent = (rois[:, axis + 2] * spatial_scale - shift) - start
        # The unaligned variant of the literature never pools less than one pixel.
        extent = extent.clamp(min=0.0 if aligned else 1.0)
        windows.append(_axis_windows(start, extent, pixels, bins, sampling_ratio))
    return windows[0], windows[1]


def _axis_windows(start: Tensor, extent: Tensor, pixels: int, bins: int, sampling_ratio: int) -> _Windows:
    """Windows of one axis; each averages the bilinear weights of its bin's samples."""
    bin_size = extent / bins
    count = bin_size.ceil() if sampling_ratio <= 0 else torch.full_like(bin_size, sampling_ratio)
    count = count.nan_to_num(0.0, 0.0, 0.0)
    # A bin that is wider than the feature still has to be sampled at its own density, as the operator does.
    samples = torch.arange(max(1, int(count.max())), device=start.device, dtype=start.dtype)
    safe = count.clamp(min=1)
    step = (samples[None, :] + 0.5) * (bin_size / safe)[:, None]  # (R, samples)
    first = start[:, None] + torch.arange(bins, device=start.device, dtype=start.dtype) * bin_size[:, None]
    position = first[:, :, None] + step[:, None, :]  # (R, bins, samples) in feature pixels
    used = (samples < count[:, None])[:, None] & (position >= -1) & (position <= pixels)
    position = torch.where(used, position, 0).clamp(0, pixels - 1)
    lower = position.floor()
    share = used / safe[:, None, None]
    fraction = position - lower
    lower = lower.long()
    begin = lower[:, :, :1]  # samples ascend, and those before the feature count as pixel 0, with share 0
    place = torch.where(used, lower - begin, 0)
    span = torch.arange(int(place.max()) + 2, device=start.device)
    weights = position.new_zeros((*position.shape[:2], len(span)))
    weights.scatter_add_(2, place, (1 - fraction) * share)
    weights.scatter_add_(2, place + 1, fraction * share)
    return _Windows((begin + span).clamp(max=pixels - 1), weights)
