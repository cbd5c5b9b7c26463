"""What every test may ask for: the real images, the golden arrays, and a strict JAX."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images, `$JAXVAE_DATA/data`; unset skips and says so, set but missing fails."""
    root = os.environ.get("JAXVAE_DATA")
    if not root:
        pytest.skip("JAXVAE_DATA is not set: it names the folder that holds data/ with real images")
    folder = Path(root).resolve() / "data"
    assert folder.is_dir(), f"JAXVAE_DATA={root} has no folder data/; unset it to skip the tests on real images"
    return folder
