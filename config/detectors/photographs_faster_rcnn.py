"""Faster R-CNN for a few hundred photographs on two CPU cores: photographs_mask_rcnn.py without masks."""

_base_ = "photographs_mask_rcnn.py"

model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)

train_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(256, 256), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor", "source")),
]
