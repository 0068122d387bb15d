"""InstaGen's detector for novel categories: Faster R-CNN R50-FPN with a sigmoid for each category.

Its released code: SGD 0.02 (the paper says 0.01), divided by 10 after 8 and 11 of 12 epochs, 500 iterations
of warm-up, 32 images of one source in a batch, boxes for each category. An epoch is 107,761 real, up to
60,000 and up to 51,000 drawn images: 6,835 batches. Done otherwise: the ResNet is PyTorch's instead of
Caffe's, and real images are resized as drawn ones, to a short side of 224 to 800 (the code has 800).
"""

_base_ = "coco_faster_rcnn_r50_fpn.py"

model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type="SigmoidLoss"))))

train_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomChoiceResize", scales=[(1333, side) for side in range(224, 801, 32)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor", "source")),
]

batch_size = 32
max_iters = 82_020
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=82_020, milestones=[54_680, 75_185], gamma=0.1),
]
