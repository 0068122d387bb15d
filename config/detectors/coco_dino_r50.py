"""DINO R50 with four levels on COCO, trained as long as in DiffusionEngine's table 2 ("6x"): mmdet's own.

270k iterations of 32 images, AdamW 2e-4 (the backbone a tenth of it) divided by 10 at 210k and 250k, 1k
iterations of warm-up, gradients clipped at 0.1. The backbone starts from ImageNet: name the file in
`backbone_weights`.
"""

_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"

sizes = [(side, 1333) for side in range(480, 801, 32)]

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

batch_size = 32
max_iters = 270_000
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=270_000, milestones=[210_000, 250_000], gamma=0.1),
]
