"""DiffusionEngine's adapter at full scale: DINO on five levels of Stable Diffusion 2.0-base.

As its released code trains it: 90k iterations of 64 images, AdamW 2e-4 throughout, a tenth of it after
11 of 12 parts, gradients clipped at 0.1, no warm-up; mmdet's DINO with Deformable DETR's position embedding.
The model is named in the detector's setting `diffusion`; the widths of its levels (960, 1600, 1920, 3840) are
filled in.
"""

_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"

levels = 5  # strides 8, 16, 32 and 64 of the U-Net, and one of half the last
sizes = [(side, 1333) for side in range(480, 801, 32)]

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

train_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [dict(type="RandomChoiceResize", scales=sizes, keep_ratio=True)],
            [
                dict(
                    type="RandomChoiceResize", scales=[(400, 4200), (500, 4200), (600, 4200)], keep_ratio=True
                ),
                dict(
                    type="RandomCrop",
                    crop_type="absolute_range",
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                dict(type="RandomChoiceResize", scales=sizes, keep_ratio=True),
            ],
        ],
    ),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor", "source")),
]
test_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
]

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
