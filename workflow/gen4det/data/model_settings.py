"""Where a pretrained model comes from; apart from other settings: what names one depends on no more."""

from gen4det.core.settings import Settings


class ModelSource(Settings):
    """One pretrained model in the file format of diffusers or transformers."""

    path: str
    """A folder, or a model id on the Hugging Face hub ("owner/name")."""
    revision: str | None = None
    """Commit hash on the hub. Required for hub ids, so that the same settings name the same weights."""
