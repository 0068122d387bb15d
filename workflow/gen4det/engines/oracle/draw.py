"""The oracle: canvases of the miniature as its renderer draws them, with exact boxes and masks.

What a detector gains from them is an upper bound for any generator with the same layouts.
"""

from collections.abc import Iterable, Iterator

from gen4det.data.masks import mask_to_rle
from gen4det.engines import base
from gen4det.engines.oracle.settings import Settings
from gen4det.miniature.canvases import render_canvas


class Drawer(base.Drawer):
    """Draws with the renderer of the miniature; the seed of a row decides about its image."""

    settings: Settings

    def synthesize(self, batches: Iterable[list[dict]]) -> Iterator[list[base.Generated]]:
        """See `base.Drawer.synthesize`. Raises InputError for a category that the miniature does not have."""
        for rows in batches:
            yield [_render(row) for row in rows]


def _render(row: dict) -> base.Generated:
    scene = render_canvas(row["regions"], row["height"], row["width"], row["seed"])
    instances = [
        base.Instance(placed.category.id, [float(side) for side in placed.box], mask_to_rle(placed.mask))
        for placed in scene.objects
    ]
    return base.Generated(row, scene.image, instances)
