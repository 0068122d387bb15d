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
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gen4det.detection.mmcv_attention import ms_deform_attn_backward, ms_deform_attn_forward

NAME = "mmcv._ext"
_NMS_BLOCK = 256  # boxes whose mutual overlaps are resolved one after the other
_ROI_CHUNK_BYTES = 64 * 2**20  # bound on the intermediate tensor of RoIAlign


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
    order = scores.sort(descending=True, stable=True).indices.cpu()
    # NumPy rather than torch: the pieces are small, and its single thread needs no pool to wake up.
    # Half precision would make the areas of real images overflow.
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    candidates = boxes.detach().cpu()[order].to(dtype).numpy()
    threshold = candidates.dtype.type(iou_threshold)
    alive = np.ones(len(order), dtype=bool)
    for start in range(0, len(order), _NMS_BLOCK):
        block = start + np.flatnonzero(alive[start : start + _NMS_BLOCK])
        gone = np.zeros(len(block), dtype=bool)
        for index, covers in enumerate(_iou(candidates[block], candidates[block], offset) > threshold):
            if not gone[index]:
                gone[index + 1 :] |= covers[index + 1 :]
        alive[block] = ~gone
        rest = start + _NMS_BLOCK + np.flatnonzero(alive[start + _NMS_BLOCK :])
        covered = _iou(candidates[block[~gone]], candidates[rest], offset) > threshold
        alive[rest] = ~covered.any(axis=0)
    return order[torch.from_numpy(alive)].to(boxes.device)


def _nms_torchvision(kernels, boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    return kernels.nms(boxes.detach().to(dtype), scores.detach().to(dtype), iou_threshold)


def _iou(first: np.ndarray, second: np.ndarray, offset: int) -> np.ndarray:
    """IoU of every pair, (A, B), in the order of operations of the compiled operator."""
    x1, y1, x2, y2 = first.T[:, :, None]
    u1, v1, u2, v2 = second.T[:, None, :]
    width = np.minimum(x2, u2)
    width -= np.maximum(x1, u1)
    width += offset
    np.maximum(width, 0, out=width)
    height = np.minimum(y2, v2)
    height -= np.maximum(y1, v1)
    height += offset
    np.maximum(height, 0, out=height)
    common = np.multiply(width, height, out=width)
    union = np.add(
        (x2 - x1 + offset) * (y2 - y1 + offset), (u2 - u1 + offset) * (v2 - v1 + offset), out=height
    )
    union -= common
    with np.errstate(divide="ignore", invalid="ignore"):  # two empty boxes: 0/0 suppresses nothing
        return np.divide(common, union, out=common)


# --- RoIAlign -----------------------------------------------------------------------------------
#
# Average pooling over a grid of bilinear samples is separable: bin (p, q) of a region is the sum over pixels
# (y, x) of R[p, y] * C[q, x] * feature[y, x], where row p of R collects the bilinear weights of that bin's
# sampling rows, and C those of the columns. Two matrix products therefore replace the sampling, whatever the
# number of samples, and the backward pass is the same two products transposed. Nothing depends on the order
# of threads.


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
    work = feature.permute(0, 2, 3, 1).to(dtype).contiguous()
    height, width, channels = work.shape[1:]
    size = (aligned_height, aligned_width)
    across, down = _weights(rois, (height, width), size, spatial_scale, sampling_ratio, aligned, work.dtype)
    for image, chosen in _groups(rois, aligned_height * width * channels * work.element_size()):
        plane = work[image].reshape(-1, height, width * channels)  # one plane, or one for each region
        rows = torch.matmul(down[chosen].reshape(len(plane), -1, height), plane)
        rows = rows.view(-1, aligned_height, width, channels)
        bins = torch.einsum("rqw,rpwc->rpqc", across[chosen], rows).permute(0, 3, 1, 2)
        output[chosen] = bins.to(output.dtype)


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
    bins = grad_output.permute(0, 2, 3, 1).to(dtype).contiguous()
    images, channels, height, width = grad_input.shape
    size = (aligned_height, aligned_width)
    total = torch.zeros((images, height, width * channels), dtype=dtype, device=bins.device)
    across, down = _weights(rois, (height, width), size, spatial_scale, sampling_ratio, aligned, dtype)
    for image, chosen in _groups(rois, aligned_height * width * channels * bins.element_size()):
        rows = torch.einsum("rqw,rpqc->rpwc", across[chosen], bins[chosen])
        planes = total[image].view(-1, height, width * channels)
        weights = down[chosen].reshape(len(planes), -1, height).transpose(1, 2)
        planes.baddbmm_(weights, rows.reshape(len(planes), -1, width * channels))
    grad_input += total.view(images, height, width, channels).permute(0, 3, 1, 2).to(grad_input.dtype)


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "mmcv operator 'roi_align' with max pooling is not part of the stand-in; "
            "install mmcv with its compiled operators"
        )


def _groups(rois: Tensor, bytes_per_roi: int) -> list[tuple[slice, Tensor | slice]]:
    """Regions that are computed together, as (images, regions).

    Targets of masks come as one region per image in order: those are one batch. Otherwise each image has its
    group.
    """
    limit = max(1, _ROI_CHUNK_BYTES // bytes_per_roi)
    owner = rois[:, 0].long().cpu()
    if len(owner) > 1 and torch.equal(owner, torch.arange(len(owner))):
        pieces = [slice(k, min(k + limit, len(owner))) for k in range(0, len(owner), limit)]
        return [(piece, piece) for piece in pieces]
    groups = []
    for image in owner.unique().tolist():
        for chosen in (owner == image).nonzero()[:, 0].split(limit):
            first, last = int(chosen[0]), int(chosen[-1]) + 1
            contiguous = last - first == len(chosen)  # as a rule; a slice spares the copies
            groups.append(
                (slice(image, image + 1), slice(first, last) if contiguous else chosen.to(rois.device))
            )
    return groups


def _weights(
    rois: Tensor,
    feature_size: tuple[int, int],
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Pooling weights of each region: ((R, bins across, W), (R, bins down, H))."""
    rois = rois.to(dtype)
    shift = 0.5 if aligned else 0.0
    weights = []
    for axis, pixels, bins in ((1, feature_size[1], output_size[1]), (2, feature_size[0], output_size[0])):
        start = rois[:, axis] * spatial_scale - shift
        extent = (rois[:, axis + 2] * spatial_scale - shift) - start
        # The unaligned variant of the literature never pools less than one pixel.
        extent = extent.clamp(min=0.0 if aligned else 1.0)
        weights.append(_axis_weights(start, extent, pixels, bins, sampling_ratio))
    return weights[0], weights[1]


def _axis_weights(start: Tensor, extent: Tensor, pixels: int, bins: int, sampling_ratio: int) -> Tensor:
    """Weights (R, bins, pixels) of one axis; each row averages the bilinear weights of the bin's samples."""
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
    weights = position.new_zeros((*position.shape[:2], pixels))
    lower = lower.long()
    weights.scatter_add_(2, lower, (1 - fraction) * share)
    weights.scatter_add_(2, (lower + 1).clamp(max=pixels - 1), fraction * share)
    return weights
