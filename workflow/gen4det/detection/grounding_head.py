"""A grounding head: boxes of named classes from feature maps that something else has computed.

Structure and layers are mmdet's Grounding DINO (Liu et al., arXiv 2303.05499) without backbone and language
model, as InstaGen (arXiv 2402.05937, section 3.3) puts it on a U-Net: classes are vectors, one to several for
each image, padded and masked. Two things of mmdet's encoder are done otherwise. Its fusion takes a mask of
booleans, on which -9e15 becomes True again, so that padding is attended to; and it repeats the masks of a
batch in another order than torch's attention expects them. Scores are cosines, so that a query's score
depends neither on the other queries nor on the other classes of its image.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gen4det.detection import detectors  # noqa: F401  (makes mmdet usable; before anything of it is imported)

# isort: split
from mmcv.cnn.bricks.transformer import MultiScaleDeformableAttention
from mmdet.models.dense_heads.grounding_dino_head import ContrastiveEmbed, GroundingDINOHead
from mmdet.models.detectors.deformable_detr import DeformableDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.models.layers.transformer.grounding_dino_layers import (
    GroundingDinoTransformerDecoder,
    GroundingDinoTransformerEncoder,
)
from mmdet.models.layers.transformer.utils import MLP, get_text_sine_pos_embed
from mmdet.models.necks import ChannelMapper
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData

from gen4det.detection.grounding_settings import GroundingLosses, GroundingShape

# Classes have no position in the queries' attention to them, which mmcv takes for a slip.
warnings.filterwarnings("ignore", message="position encoding of key ismissing")
GROUPS = 32
"""Of the group normalisation in the neck."""
LEAST = 8
"""Channels of a group, as in 256 of 32 groups: with one alone a map of one cell could not be normalised."""


@dataclass(frozen=True)
class Found:
    """What a head says of a batch, layer by layer."""

    logits: Tensor
    """(decoder layers, images, queries, classes); -inf where there is no class."""
    boxes: Tensor
    """(decoder layers, images, queries, 4): centre, width and height as shares of the image."""
    first_logits: Tensor
    """(images, queries, classes) of the proposals."""
    first_boxes: Tensor
    """(images, queries, 4)."""


@dataclass(frozen=True)
class Objects:
    """Labels of one image."""

    boxes: Tensor
    """float32 (N, 4), [x0, y0, x1, y1] as shares of the image."""
    slots: Tensor
    """int64 (N,), which of the image's classes each is."""


class CosineScore(ContrastiveEmbed):
    """Scale times the cosine of query and class, plus a bias that makes the first scores 0.01 on average.

    mmdet's own forward scales only if the scale is a parameter: a teacher, whose weights are buffers, would
    give no score above 0.03.
    """

    def forward(self, visual_feat: Tensor, text_feat: Tensor, text_token_mask: Tensor) -> Tensor:
        """Logits (images, queries, classes); -inf where there is no class."""
        queries, classes = (functional.normalize(it, dim=-1) for it in (visual_feat, text_feat))
        logits = queries @ classes.transpose(-1, -2) * self.log_scale.exp() + self.bias
        return logits.masked_fill(~text_token_mask[:, None, :], float("-inf"))


class CosineHead(GroundingDINOHead):
    """mmdet's losses and matching, with cosines as scores."""

    def _init_layers(self) -> None:
        super()._init_layers()
        self.cls_branches = nn.ModuleList([
            CosineScore(log_scale=self.contrastive_cfg["log_scale"], bias=True)
            for _ in range(self.num_pred_layer)
        ])  # fmt: skip

    @staticmethod
    def split_outputs(logits: Tensor, boxes: Tensor, dn_meta: None) -> tuple[Tensor, Tensor, None, None]:
        """All queries are matched with objects: there are none that denoise."""
        return logits, boxes, None, None


class Encoder(GroundingDinoTransformerEncoder):
    """mmdet's layers in mmdet's order, with padding that nothing attends to."""

    def forward(self, query: Tensor, query_pos: Tensor, text: Tensor, named: Tensor, **levels: Tensor):
        """Enhance image tokens and class tokens with each other.

        Args:
            query, query_pos: (images, tokens, channels).
            text: (images, classes, channels).
            named: bool (images, classes), False for padding.
            levels: spatial_shapes, level_start_index, valid_ratios.

        Returns:
            Both, of the same shapes.
        """
        points = self.get_encoder_reference_points(
            levels["spatial_shapes"], levels["valid_ratios"], device=query.device
        )
        order = torch.arange(text.shape[1], device=text.device, dtype=text.dtype)
        text_pos = get_text_sine_pos_embed(
            order[None, :, None], num_pos_feats=self.embed_dims, exchange_xy=False
        ).expand_as(text)
        for fusion, text_layer, layer in zip(self.fusion_layers, self.text_layers, self.layers, strict=True):
            query, text = fusion(
                visual_feature=query, lang_feature=text, attention_mask_l=named.to(query.dtype)
            )
            text = text_layer(query=text, query_pos=text_pos, key_padding_mask=~named)
            query = layer(
                query=query, query_pos=query_pos, reference_points=points, key_padding_mask=None, **levels
            )
        return query, text


class Decoder(GroundingDinoTransformerDecoder):
    """mmdet's, whose positions of queries have four times the width of a query where it expects twice."""

    def _init_layers(self) -> None:
        super()._init_layers()
        width = self.embed_dims
        self.ref_point_head = MLP(4 * width, width, width, 2)


class GroundingHead(nn.Module):
    """Boxes of named classes from feature maps.

    Args:
        channels: of the maps of each level, the largest first.
        text_channels: of a class vector.
        shape, losses: see there.
    """

    gen_encoder_output_proposals = DeformableDETR.gen_encoder_output_proposals

    def __init__(
        self,
        channels: Sequence[int],
        text_channels: int,
        shape: GroundingShape,
        losses: GroundingLosses | None = None,
    ):
        super().__init__()
        self.shape, self.channels, self.text_channels = shape, list(channels), text_channels
        width, levels = shape.channels, len(channels)
        self.neck = ChannelMapper(
            in_channels=self.channels,
            kernel_size=shape.neck_kernel,
            out_channels=width,
            norm_cfg={"type": "GN", "num_groups": math.gcd(GROUPS, width // LEAST, width)},
            act_cfg=None,
            num_outs=levels,
        )
        self.positions = SinePositionalEncoding(width // 2, temperature=20, normalize=True)
        self.level_embed = nn.Parameter(torch.zeros(levels, width))
        self.text_map = nn.Linear(text_channels, width)
        self.encoder = _encoder(shape, levels)
        self.memory_trans_fc, self.memory_trans_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.queries = nn.Embedding(shape.queries, width)
        self.decoder = _decoder(shape, levels)
        self.bbox_head = _heads(shape, losses or GroundingLosses())
        self._initialise()

    def _initialise(self) -> None:
        """As mmdet initialises its Grounding DINO."""
        self.neck.init_weights()
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        for linear in (self.memory_trans_fc, self.text_map):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.xavier_uniform_(self.queries.weight)
        nn.init.normal_(self.level_embed)
        self.bbox_head.init_weights()

    def forward(self, features: Sequence[Tensor], text: Tensor, named: Tensor) -> Found:
        """Look for the classes of each image.

        Args:
            features: float32 (images, channels of the level, height, width) for each level.
            text: float32 (images, classes, text channels), class vectors, anything where there is none.
            named: bool (images, classes), which of them are there; at least one in each image.
        """
        tokens, places, shapes = self._tokens(features)
        starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
        ratios = tokens.new_ones(len(tokens), len(shapes), 2)
        levels = {"spatial_shapes": shapes, "level_start_index": starts, "valid_ratios": ratios}
        classes = self.text_map(text.masked_fill(~named[..., None], 0))
        memory, classes = self.encoder(tokens, places, classes, named, **levels)
        logits, boxes = self._propose(memory, shapes, classes, named)
        hidden, references = self.decoder(
            query=self.queries.weight[: logits.shape[1]].expand(len(memory), -1, -1),
            value=memory,
            key_padding_mask=None,
            self_attn_mask=None,
            reference_points=boxes.detach(),
            reg_branches=self.bbox_head.reg_branches,
            memory_text=classes,
            text_attention_mask=~named,
            **levels,
        )
        every_logits, every_box = self.bbox_head(hidden, references, classes, named)
        return Found(every_logits, every_box, logits, boxes)

    def _tokens(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens and their positions (images, tokens, channels); sizes of the maps, (levels, 2)."""
        maps = self.neck(features)
        places = [
            self.positions(None, input=it).flatten(2).transpose(1, 2) + embed
            for it, embed in zip(maps, self.level_embed, strict=True)
        ]
        shapes = torch.tensor([it.shape[-2:] for it in maps], device=maps[0].device)
        tokens = torch.cat([it.flatten(2).transpose(1, 2) for it in maps], 1)
        return tokens, torch.cat(places, 1), shapes

    def _propose(
        self, memory: Tensor, shapes: Tensor, classes: Tensor, named: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The tokens that some class likes best: their logits, and boxes around them."""
        last = self.bbox_head.num_pred_layer - 1
        candidates, proposals = self.gen_encoder_output_proposals(memory, None, shapes)
        logits = self.bbox_head.cls_branches[last](candidates, classes, named)
        boxes = self.bbox_head.reg_branches[last](candidates) + proposals
        count = min(self.shape.queries, memory.shape[1])
        best = logits.max(-1).values.topk(count, dim=1).indices[..., None]
        return (
            torch.gather(logits, 1, best.expand(-1, -1, logits.shape[-1])),
            torch.gather(boxes, 1, best.expand(-1, -1, 4)).sigmoid(),
        )

    def loss(self, found: Found, objects: Sequence[Objects], learned: Tensor) -> dict[str, Tensor]:
        """Losses of all layers, three each, already weighted.

        Args:
            objects: labels of each image.
            learned: bool (images, classes), the classes whose objects are labelled; the scores of others have
                no loss.
        """
        head, classes = self.bbox_head, learned.shape[1]
        head.text_masks, head.max_text_len = learned, classes
        truth = [
            InstanceData(
                bboxes=it.boxes,
                labels=it.slots,
                positive_maps=functional.one_hot(it.slots, classes).float(),
                text_token_mask=of_image.expand(len(it.slots), -1),
            )
            for it, of_image in zip(objects, learned, strict=True)
        ]
        about = [{"img_shape": (1.0, 1.0)}] * len(truth)  # boxes are shares of the image
        return head.loss_by_feat(
            found.logits, found.boxes, found.first_logits, found.first_boxes, truth, about, dn_meta=None
        )


def _encoder(shape: GroundingShape, levels: int) -> Encoder:
    width, drop = shape.channels, shape.dropout if shape.dropout_everywhere else 0.0
    return Encoder(
        num_layers=shape.encoder_layers,
        num_cp=0,
        layer_cfg={
            "self_attn_cfg": _deformable(shape, levels, drop),
            "ffn_cfg": {"embed_dims": width, "feedforward_channels": shape.feed_forward, "ffn_drop": drop},
        },
        text_layer_cfg={
            "self_attn_cfg": {"num_heads": shape.text_heads, "embed_dims": width, "dropout": shape.dropout},
            "ffn_cfg": {
                "embed_dims": width,
                "feedforward_channels": shape.text_feed_forward,
                "ffn_drop": shape.dropout,
            },
        },
        fusion_layer_cfg={
            "v_dim": width,
            "l_dim": width,
            "embed_dim": shape.fusion_channels,
            "num_heads": shape.text_heads,
            "dropout": shape.dropout,
            "init_values": 1e-4,
        },
    )


def _decoder(shape: GroundingShape, levels: int) -> Decoder:
    width, drop = shape.channels, shape.dropout if shape.dropout_everywhere else 0.0
    return Decoder(
        num_layers=shape.decoder_layers,
        return_intermediate=True,
        layer_cfg={
            "self_attn_cfg": {"embed_dims": width, "num_heads": shape.heads, "dropout": drop},
            "cross_attn_text_cfg": {
                "embed_dims": width,
                "num_heads": shape.heads,
                "dropout": shape.dropout,
            },
            "cross_attn_cfg": _deformable(shape, levels, drop),
            "ffn_cfg": {"embed_dims": width, "feedforward_channels": shape.feed_forward, "ffn_drop": drop},
        },
        post_norm_cfg=None,
    )


def _deformable(shape: GroundingShape, levels: int, dropout: float) -> dict:
    return {
        "embed_dims": shape.channels,
        "num_heads": shape.heads,
        "num_levels": levels,
        "num_points": shape.points,
        "dropout": dropout,
    }


def _heads(shape: GroundingShape, losses: GroundingLosses) -> CosineHead:
    return CosineHead(
        num_classes=1,  # classes are vectors; their number is that of the image
        embed_dims=shape.channels,
        share_pred_layer=False,
        num_pred_layer=shape.decoder_layers + 1,
        as_two_stage=True,
        sync_cls_avg_factor=True,
        contrastive_cfg={"log_scale": math.log(shape.score_scale), "bias": True},
        loss_cls={
            "type": "FocalLoss",
            "use_sigmoid": True,
            "gamma": 2.0,
            "alpha": 0.25,
            "loss_weight": losses.score,
        },
        loss_bbox={"type": "L1Loss", "loss_weight": losses.box},
        loss_iou={"type": "GIoULoss", "loss_weight": losses.overlap},
        train_cfg={
            "assigner": {
                "type": "HungarianAssigner",
                "match_costs": [
                    {"type": "BinaryFocalLossCost", "weight": losses.score_cost},
                    {"type": "BBoxL1Cost", "weight": losses.box_cost, "box_format": "xywh"},
                    {"type": "IoUCost", "iou_mode": "giou", "weight": losses.overlap_cost},
                ],
            }
        },
    )


@torch.no_grad()
def predictions(found: Found, named: Tensor, *, most: int = 300) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Detections of each image from the last layer, best first, without suppression of overlaps.

    Args:
        named: bool (images, classes); padding is never found.
        most: detections of an image.

    Returns:
        For each image scores (N,) in [0, 1], slots int64 (N,) and boxes (N, 4), [x0, y0, x1, y1] as shares of
        the image, inside it.
    """
    results = []
    for logits, boxes, there in zip(found.logits[-1], found.boxes[-1], named, strict=True):
        slots = there.nonzero()[:, 0]
        scores = logits[:, slots].sigmoid()
        best, places = scores.flatten().topk(min(most, scores.numel()))
        corners = bbox_cxcywh_to_xyxy(boxes).clamp(0, 1)
        results.append((best, slots[places % len(slots)], corners[places // len(slots)]))
    return results
