"""The device a stage computes on, and how it multiplies there unless a setting says otherwise."""

import argparse

from gen4det.core.errors import InputError
from gen4det.core.precision import EXACT, set_float32_arithmetic


def add_device_arguments(
    parser: argparse.ArgumentParser, *, workers: str | None = None, batch_size: int | None = None
) -> None:
    """Give a stage `--device`, `--workers` if it has some, and `--batch-size` if it has a default.

    None of them changes a result by more than floating point does.

    Args:
        workers: what they are, for `--help`.
        batch_size: images at once.
    """
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    if batch_size is not None:
        parser.add_argument("--batch-size", type=int, default=batch_size, metavar="N", help="images at once")
    if workers is not None:
        parser.add_argument("--workers", type=int, default=0, metavar="N", help=workers)


def torch_device(name: str) -> str:
    """ "cpu" or "cuda"; on a GPU float32 is exact from now on, as on the CPU. See `core.precision`.

    Args:
        name: "cpu", "cuda", or "auto": cuda where there is one.

    Raises:
        InputError: cuda is asked for and not there.
    """
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        set_float32_arithmetic(EXACT)
        return "cuda"
    if name == "cuda":
        raise InputError("--device cuda: torch finds no CUDA device here")
    return "cpu"
