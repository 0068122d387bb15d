"""DINO for the miniature: the reduced one of DiffusionEngine's adapter, on the other detectors' ResNet."""

_base_ = "miniature_diffusion_dino.py"

model = dict(
    data_preprocessor=dict(pad_size_divisor=32, pad_value=0),
    backbone=dict(
        _delete_=True,
        type="ResNet",
        depth=18,
        base_channels=24,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type="BN"),
        norm_eval=False,
        style="pytorch",
    ),
    neck=dict(in_channels=[48, 96, 192]),
)
