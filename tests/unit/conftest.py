"""Fixtures that unit tests share. Each imports what it needs when it is asked for: most tests do without."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def diffusion_folder(tmp_path_factory) -> Path:
    """A tiny diffusion model that a detector sits on, a module's own: a test may exchange it for a while."""
    from tiny_adapter import save_model

    return save_model(tmp_path_factory.mktemp("diffusion"))


@pytest.fixture(scope="module")
def frozen(diffusion_folder):
    """Its features (FrozenFeatures)."""
    from gen4det.diffusion.frozen import load_frozen
    from gen4det.diffusion.settings import ModelSource

    return load_frozen(ModelSource(path=str(diffusion_folder)))
