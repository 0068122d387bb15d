"""Label regions in a pool of processes, beside the generation of the next images."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from gen4det.engines.mosaicfusion.mask_settings import MaskSettings
from gen4det.engines.mosaicfusion.region_masks import place, region_mask


@dataclass(frozen=True)
class RegionLabel:
    """Mask and box of a region's object on the canvas, or the reason why there is none."""

    rle: dict | None = None
    bbox: list[float] | None = None
    reason: str | None = None


def label_region(
    heat: Mapping[int, np.ndarray],
    rgb: np.ndarray,
    box: tuple[int, int, int, int],
    canvas: tuple[int, int],
    settings: MaskSettings,
) -> RegionLabel:
    """From a region's attention and pixels to its object's label on the canvas.

    Args:
        heat: down-sampling factor -> float32 (h, w), see `TokenMaps.maps`.
        rgb: uint8 (H, W, 3), the region's pixels.
        box: x, y, width, height of the region on the canvas.
        canvas: (height, width).
    """
    found = region_mask(heat, rgb, settings)
    if found.mask is None:
        return RegionLabel(reason=found.reason)
    rle, bbox = place(found.mask, box, canvas)
    return RegionLabel(rle=rle, bbox=bbox)


@contextlib.contextmanager
def labelling(workers: int) -> Iterator[Callable[..., "Future[RegionLabel]"]]:
    """A function that starts `label_region` on its arguments and returns a future.

    Args:
        workers: processes; 0 labels at once, in this process. The labels are the same.
    """
    if workers == 0:
        yield _label_now
        return
    # Fresh processes: a fork would inherit torch's threads, and a GPU context that it must not touch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker) as pool:
        try:
            yield lambda *arguments: pool.submit(label_region, *arguments)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _label_now(*arguments) -> "Future[RegionLabel]":
    future: Future[RegionLabel] = Future()
    future.set_result(label_region(*arguments))
    return future


def _prepare_worker() -> None:
    """Leave signals to the parent, which saves first and then ends the pool; end with it if it is killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
