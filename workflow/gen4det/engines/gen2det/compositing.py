"""Between a real image and the size the model paints at."""

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_cdt


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The whole image at another size, uint8 (height, width, 3); sides are scaled independently."""
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def paint_weights(mask: np.ndarray, height: int, width: int, feather: int) -> np.ndarray:
    """How much of each pixel is painted.

    Args:
        mask: of latent cells, 0 where painted, 1 where kept; shows the whole image.
        height, width: of the image in pixels.
        feather: pixels over which the weight rises, inwards from the border between both. The image's own
            border is none.

    Returns:
        float32 (height, width): 0 in kept cells, 1 deep inside painted ones.
    """
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    painted = mask[np.ix_(rows, columns)] == 0
    if painted.all():
        return np.ones((height, width), np.float32)
    depth = distance_transform_cdt(painted, metric="chessboard")  # 1 in the outermost painted pixels
    return np.minimum(depth / (feather + 1), 1).astype(np.float32)


def paste(original: np.ndarray, painted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Blend two images uint8 (H, W, 3); where the weight is 0 the original stays exactly as it is."""
    share = weights[..., None]
    return np.rint(share * painted + (1 - share) * original).astype(np.uint8)
