"""Where the layers of a Stable-Diffusion-like U-Net work: how often the latent image was halved there."""

from diffusers import UNet2DConditionModel

from gen4det.core.errors import InputError


def layer_level(layer: str, blocks: int) -> int:
    """How often the latent image was halved where a layer works: every level but the last halves.

    Args:
        layer: path inside the U-Net, e.g. "down_blocks.1.attentions.0".
        blocks: number of its down blocks.
    """
    place, index = f"{layer}.0".split(".")[:2]
    if place == "down_blocks":
        return int(index)
    if place == "up_blocks":
        return blocks - 1 - int(index)
    return blocks - 1


def require_plain_levels(unet: UNet2DConditionModel) -> None:
    """Refuse a U-Net for which the arithmetic above is wrong.

    Raises:
        InputError: no middle block, other numbers of up and down blocks, or a block that halves or doubles
            where Stable Diffusion's does not.
    """
    down, up = unet.down_blocks, unet.up_blocks
    halves = [bool(getattr(block, "downsamplers", None)) for block in down]
    doubles = [bool(getattr(block, "upsamplers", None)) for block in up]
    inner = [True] * (len(down) - 1) + [False]
    if unet.mid_block is None or len(up) != len(down) or halves != inner or doubles != inner:
        raise InputError(
            f"U-Net of {len(down)} down and {len(up)} up blocks: not built like Stable Diffusion's, in which "
            "every down block but the last halves, a middle block follows, and every up block but the last "
            "doubles"
        )
