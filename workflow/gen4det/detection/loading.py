"""How images come to a detector: read from a store, in processes that outlive signals to the whole job."""

import signal

import numpy as np
from mmcv.transforms import BaseTransform

from gen4det.core.errors import InputError
from gen4det.detection import detectors  # noqa: F401  (makes mmdet usable; before anything of it is imported)

# isort: split
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadStoredImage(BaseTransform):
    """Read the image that `images` (ImageStore) and `img_path` (name in it) of the results point at.

    Adds `img`, uint8 (H, W, 3) in BGR order as everywhere in mmdet, `img_shape` and `ori_shape` (H, W).
    """

    def transform(self, results: dict) -> dict:
        """Load.

        Raises:
            InputError: the image is missing or damaged, or its size is not the annotated one.
        """
        image = results["images"].image(results["img_path"])
        expected = (results["height"], results["width"])
        if image.shape[:2] != expected:
            raise InputError(
                f"{results['images'].root / results['img_path']}: "
                f"{image.shape[1]} x {image.shape[0]} pixels; annotated as {expected[1]} x {expected[0]}"
            )
        results["img"] = np.ascontiguousarray(image[..., ::-1])
        results["img_shape"] = results["ori_shape"] = expected
        return results


def ignore_signals(worker: int) -> None:
    """Let a loading process outlive signals that are sent to the whole job: its parent ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
