"""Faster R-CNN R50-FPN "1x" on COCO: mmdet's own, by iterations.

90k iterations of 16 images, SGD 0.02 divided by 10 at 60k and 80k, short side 800 and long side up to 1333,
mirroring. The backbone starts from ImageNet: name the file in `backbone_weights`.
"""

_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"

train_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor", "source")),
]
test_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
]

batch_size = 16
max_iters = 90_000
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=90_000, milestones=[60_000, 80_000], gamma=0.1),
]
