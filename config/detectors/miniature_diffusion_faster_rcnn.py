"""Faster R-CNN on the features of the miniature's U-Net: the same heads as on a ResNet, another backbone.

The model is named in the detector's setting `diffusion`; the widths of its levels are filled in.
"""

_base_ = "miniature_faster_rcnn.py"

model = dict(
    data_preprocessor=dict(pad_size_divisor=4, pad_value=-1),  # latent cells; black
    # Each image comes mirrored or not, some ten times: three quarters of the time would be the U-Net's.
    backbone=dict(_delete_=True, type="FrozenDiffusion", kept_draws=1),
    # Levels of strides 4, 8, 16 and a fourth by pooling. Nothing scales the U-Net's features: the neck does.
    neck=dict(in_channels=[], norm_cfg=dict(type="GN", num_groups=16)),
)
