"""Mask R-CNN for a few hundred photographs on two CPU cores: the miniature's, which sees them at 256 px.

Anchors of 16 to 256 px. For numbers that count take one of the usual size, e.g. lvis_mask_rcnn_r50_fpn.py.
"""

_base_ = "miniature_mask_rcnn.py"

longer_side = (256, 256)  # mmdet's Resize: the largest image of the same shape within it

model = dict(
    neck=dict(num_outs=5),
    rpn_head=dict(anchor_generator=dict(strides=[4, 8, 16, 32, 64])),
)

train_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale=longer_side, keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor", "source")),
]
test_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="Resize", scale=longer_side, keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
]
