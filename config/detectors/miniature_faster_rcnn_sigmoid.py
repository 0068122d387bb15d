"""Faster R-CNN for the miniature with a sigmoid for each category, for novel categories (InstaGen).

A category that is labelled in few images must first be told from background: probabilities begin at 0.01.
"""

_base_ = "miniature_faster_rcnn.py"

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(_delete_=True, type="SigmoidLoss"),
            init_cfg=[
                dict(type="Normal", std=0.01, bias=-4.595, override=dict(name="fc_cls")),
                dict(type="Normal", std=0.001, override=dict(name="fc_reg")),
                dict(
                    type="Xavier",
                    distribution="uniform",
                    override=[dict(name="shared_fcs"), dict(name="cls_fcs"), dict(name="reg_fcs")],
                ),
            ],
        ),
    ),
)
