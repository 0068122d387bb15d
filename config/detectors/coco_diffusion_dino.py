"""DiffusionEngine's adapter at full scale: DINO on five levels of Stable Diffusion 2.0-base.

As its released code trains it: 90k iterations of 64 images, AdamW 2e-4 throughout, a tenth of it after
11 of 12 parts, gradients clipped at 0.1, no warm-up; mmdet's DINO with Deformable DETR's position embedding.
The model is named in the detector's setting `diffusion`; the widths of its levels (960, 1600, 1920, 3840) are
filled in.
"""

_base_ = "coco_dino_r50.py"  # its images: sizes, crops, mirroring

levels = 5  # strides 8, 16, 32 and 64 of the U-Net, and one of half the last

model = dict(
    num_feature_levels=levels,
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],  # to [-1, 1], as the autoencoder reads pixels
        std=[127.5, 127.5, 127.5],
        pad_size_divisor=8,  # a latent cell
        pad_value=-1,  # black
    ),
    backbone=dict(_delete_=True, type="FrozenDiffusion", precision="float16"),
    neck=dict(in_channels=[], num_outs=levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=levels))),
    positional_encoding=dict(offset=-0.5, temperature=10000),
)

batch_size = 64
max_iters = 90_000
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=90_000, milestones=[82_500], gamma=0.1),
]
