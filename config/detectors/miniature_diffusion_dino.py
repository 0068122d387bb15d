"""DiffusionEngine's adapter for the miniature: a reduced DINO on the features of the miniature's U-Net.

Structure and losses are those of mmdet's dino-4scale (denoising queries, two stages, boxes refined layer by
layer); 96 channels instead of 256, two encoder and three decoder layers instead of six, 100 queries instead
of 900. The model is named in the detector's setting `diffusion`; the widths of its levels are filled in.
"""

channels = 96
levels = 4  # strides 4, 8 and 16 of the miniature's U-Net, and one of half the last

model = dict(
    type="DINO",
    num_queries=100,
    with_box_refine=True,
    as_two_stage=True,
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[127.5, 127.5, 127.5],  # to [-1, 1], as the autoencoder reads pixels
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_size_divisor=4,  # a latent cell
        pad_value=-1,  # black
    ),
    backbone=dict(type="FrozenDiffusion", kept_draws=1),  # as the adapter with Faster R-CNN
    neck=dict(
        type="ChannelMapper",
        in_channels=[],  # of the model
        kernel_size=1,
        out_channels=channels,
        act_cfg=None,
        norm_cfg=dict(type="GN", num_groups=32),
        num_outs=levels,
    ),
    encoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=channels, num_heads=6, num_levels=levels, dropout=0.0),
            ffn_cfg=dict(embed_dims=channels, feedforward_channels=256, ffn_drop=0.0),
        ),
    ),
    decoder=dict(
        num_layers=3,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=channels, num_heads=6, dropout=0.0),
            cross_attn_cfg=dict(embed_dims=channels, num_heads=6, num_levels=levels, dropout=0.0),
            ffn_cfg=dict(embed_dims=channels, feedforward_channels=256, ffn_drop=0.0),
        ),
        post_norm_cfg=None,
    ),
    positional_encoding=dict(num_feats=channels // 2, normalize=True, offset=-0.5, temperature=10000),
    bbox_head=dict(
        type="DINOHead",
        num_classes=24,
        embed_dims=channels,
        sync_cls_avg_factor=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=20),
    ),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="FocalLossCost", weight=2.0),
                dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=100),
)

train_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor", "source")),
]
test_pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="Resize", scale_factor=1.0, keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
]

batch_size = 8
max_iters = 1200
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=1200, milestones=[1100], gamma=0.1),
]
