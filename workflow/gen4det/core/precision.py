"""How a process computes with float32: exactly, or on a GPU with products rounded to TF32 (10 bits).

PyTorch has two switches, one for matrix products and one for convolutions, and the second one is on by
default: to set the first alone is float32 for half of a U-Net. Both are set here, and nowhere else.
"""

import sys

EXACT, ROUNDED = "float32", "tf32"


def set_float32_arithmetic(precision: str) -> None:
    """Set how this process multiplies float32 from now on, in matrix products and convolutions alike.

    Args:
        precision: "tf32" rounds, on a GPU that can (NVIDIA's since Ampere); anything else is exact, since a
            model in another type still has parts in float32.
    """
    import torch

    torch.set_float32_matmul_precision("high" if precision == ROUNDED else "highest")
    torch.backends.cudnn.allow_tf32 = precision == ROUNDED


def float32_arithmetic() -> dict[str, str]:
    """How this process multiplies float32, for run records; nothing where torch was not used.

    Returns:
        "matrix products" and "convolutions", each "float32" or "tf32". Convolutions round on GPUs only.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    exact = torch.get_float32_matmul_precision() == "highest"
    rounded = torch.backends.cudnn.allow_tf32 and torch.cuda.is_available()
    return {
        "matrix products": EXACT if exact else ROUNDED,
        "convolutions": ROUNDED if rounded else EXACT,
    }
