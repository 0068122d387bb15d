"""The device a stage computes on, and how it multiplies there unless a setting says otherwise."""

from gen4det.core.errors import InputError
from gen4det.core.precision import EXACT, set_float32_arithmetic


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
