"""Real images that an engine starts from, as its manifest names them."""

from collections.abc import Iterable

import numpy as np

from gen4det.core.errors import InputError
from gen4det.data.images import ImageStore


def require_images(store: ImageStore, rows: Iterable[dict], *, who: str) -> None:
    """Refuse a plan whose references are not there, before a GPU is touched.

    Args:
        rows: of the manifest, with "file_name".
        who: what wants them, for the error, e.g. "gen2det paints it anew".

    Raises:
        InputError: the first one that is missing, and how many more.
    """
    names = dict.fromkeys(row["file_name"] for row in rows)
    missing = [name for name in names if not store.exists(name)]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f"{store.root / missing[0]}: no such image{more}; {who}")


def reference_image(store: ImageStore, row: dict) -> np.ndarray:
    """The real image of a row, uint8 (H, W, 3).

    Args:
        row: of the manifest, with "file_name", "height" and "width".

    Raises:
        InputError: missing, damaged, or of another size than its annotations say.
    """
    image = store.image(row["file_name"])
    if image.shape[:2] != (row["height"], row["width"]):
        found, said = (f"{w} x {h}" for h, w in (image.shape[:2], (row["height"], row["width"])))
        raise InputError(f"{store.root / row['file_name']}: {found} px, but its annotations say {said}")
    return image
