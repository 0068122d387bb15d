"""Where a pretrained model comes from.

Apart from other settings, so that code that only names a model is hashed without them.
"""

from gen4det.core.settings import Settings


class ModelSource(Settings):
    """One pretrained model in the file format of diffusers or transformers."""

    path: str
    """A folder, or a model id on the Hugging Face hub ("owner/name")."""
    revision: str | None = None
    """Commit hash on the hub. Required for hub ids, so that the same settings name the same weights."""
