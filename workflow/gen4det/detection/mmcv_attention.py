"""Stand-in for mmcv's compiled deformable attention; see `mmcv_ext`.

On the CPU mmcv computes deformable attention with torch's own operations; on CUDA tensors it calls the
compiled operator and nothing else. The two functions here make it take torch's operations there, too.
"""

import torch
from torch import Tensor


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021, Deformable DETR, equation 3), mmcv's PyTorch path.

    Args:
        value: (images, cells of all levels, heads, channels).
        spatial_shapes: (levels, 2), height and width of each.
        level_start_index, im2col_step: unused, they belong to the compiled operator.
        sampling_locations: (images, queries, heads, levels, points, 2), x and y in [0, 1].
        attention_weights: (images, queries, heads, levels, points).

    Returns:
        (images, queries, heads * channels).
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Gradients of `ms_deform_attn_forward`, which is computed once more: its intermediates are not kept.

    Args:
        grad_output: of the result; the other three are zeros, filled in place. The rest as there.
    """
    inputs = [x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            inputs[0], spatial_shapes, level_start_index, inputs[1], inputs[2], im2col_step=im2col_step
        )
        gradients = torch.autograd.grad(output, inputs, grad_output.view_as(output))
    targets = (grad_value, grad_sampling_loc, grad_attn_weight)
    for target, gradient in zip(targets, gradients, strict=True):
        target.copy_(gradient)
