"""What the stages that score images share: settings, and the models ready for use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings
from gen4det.diffusion.settings import FoundationSettings

if TYPE_CHECKING:
    from gen4det.filters.aesthetic import AestheticRater


class RatingSettings(Settings):
    """Settings of the stages that score images."""

    foundation: FoundationSettings
    """Of it `clip` and `aesthetic`."""


def load_rater(settings: RatingSettings, device: str) -> AestheticRater:
    """CLIP and the aesthetic predictor.

    Raises:
        InputError: one of them is not given, cannot be loaded, or a hub id has no revision.
    """
    from gen4det.filters.aesthetic import AestheticRater  # slow to import: after the arguments are read

    clip, head = settings.foundation.clip, settings.foundation.aesthetic
    for name, source in (("clip", clip), ("aesthetic", head)):
        if source is None:
            raise InputError(f"foundation.{name}: no model given; the aesthetic filter needs it")
    if clip.revision is None and not Path(clip.path).is_dir():
        raise InputError(f"{clip.path}: no such folder, and a hub id needs a revision (commit)")
    return AestheticRater(clip.path, clip.revision, head.path, device)
