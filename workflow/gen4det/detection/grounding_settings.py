"""Shape of a grounding head. Pydantic only: the Snakefile reads this module."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gen4det.core.settings import Settings

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class GroundingShape(Settings):
    """Layers and widths of a grounding head, InstaGen's by default."""

    channels: Annotated[int, Field(ge=8, multiple_of=4)] = 256
    """Width of tokens and queries."""
    neck_kernel: Literal[1, 3] = 3
    """Kernel of the convolution that brings each level of the features to that width."""
    encoder_layers: Count = 6
    decoder_layers: Count = 6
    queries: Count = 900
    """Boxes that are proposed for an image, at most."""
    heads: Count = 8
    """Heads of the attention among queries and of all deformable attention."""
    points: Count = 4
    """Points that a head of deformable attention looks at in each level."""
    feed_forward: Count = 2048
    """Inner width of the layers of image tokens and of queries."""
    text_heads: Count = 4
    """Heads of the attention among classes and of the fusion of image and text."""
    text_feed_forward: Count = 1024
    """Inner width of the layers of class tokens."""
    fusion_channels: Count = 1024
    """Width in which image and text attend to each other."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of the fusion, of text layers and of the queries' attention to text: all that disturbs the student."""
    dropout_everywhere: bool = False
    """Whether the layers of image tokens and queries drop as much, as the paper says; the code does not."""
    score_scale: Annotated[float, Field(gt=0)] = 10.0
    """What the cosine of query and class is multiplied by at first; learned. With 1, as in the released code,
    scores could not leave 0.4 to 2.7 percent."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        for name, heads in (("heads", self.heads), ("text_heads", self.text_heads)):
            if self.channels % heads:
                raise ValueError(f"{name}: {heads} heads do not divide {self.channels} channels")
        if self.fusion_channels % self.text_heads:
            raise ValueError(
                f"text_heads: {self.text_heads} heads do not divide {self.fusion_channels} fusion_channels"
            )
        return self


class GroundingLosses(Settings):
    """Weights of losses and of the costs that match queries with boxes."""

    score: Weight = 1.0
    """Of the focal loss of scores."""
    box: Weight = 5.0
    """Of the distance of box coordinates, shares of the image."""
    overlap: Weight = 2.0
    """Of the generalised IoU loss."""
    score_cost: Weight = 2.0
    box_cost: Weight = 5.0
    overlap_cost: Weight = 2.0
