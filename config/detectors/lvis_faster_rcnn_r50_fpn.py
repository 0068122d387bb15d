"""Faster R-CNN R50-FPN "1x" on LVIS v1: lvis_mask_rcnn_r50_fpn.py without masks.

Short side 640 to 800; up to 300 detections with scores from 1e-4, as LVIS is measured.
"""

_base_ = "coco_faster_rcnn_r50_fpn.py"

model = dict(test_cfg=dict(rcnn=dict(score_thr=1e-4, max_per_img=300)))

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
