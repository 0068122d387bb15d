"""Sizes in pixels and in latent cells. No torch."""

from gen4det.core.errors import InputError


def latent_cells(size: tuple[int, int], cell: int) -> tuple[int, int]:
    """(height, width) in latent cells.

    Args:
        size: (height, width) in pixels.
        cell: side of a latent cell in pixels.

    Raises:
        InputError: a side is not a multiple of a cell.
    """
    for side, value in zip(("height", "width"), size, strict=True):
        if value % cell:
            raise InputError(
                f"detdiffusion: size.{side}: {value} px is not a multiple of this model's {cell} px"
            )
    return size[0] // cell, size[1] // cell
