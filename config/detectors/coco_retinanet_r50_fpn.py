"""RetinaNet R50-FPN on COCO, trained as long as in DiffusionEngine's table 2 ("6x"): mmdet's own.

270k iterations of 32 images, SGD 0.02 divided by 10 at 210k and 250k, short side 640 to 800 and long side up
to 1333, mirroring. The backbone starts from ImageNet: name the file in `backbone_weights`.
"""

_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"

train_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
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
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=270_000, milestones=[210_000, 250_000], gamma=0.1),
]
