"""The device a stage computes on."""

from gen4det.core.errors import InputError


def torch_device(name: str) -> str:
    """ "cpu" or "cuda".

    Args:
        name: "cpu", "cuda", or "auto": cuda where there is one.

    Raises:
        InputError: cuda is asked for and not there.
    """
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise InputError("--device cuda: torch finds no CUDA device here")
    return "cpu"
