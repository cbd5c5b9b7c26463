"""Training curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvae.errors import InputError
from jaxvae.report import training_curve


def decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("count", [1, 30])
def test_a_training_curve_is_drawn(tmp_path: Path, count: int, validated: bool) -> None:
    extra = {"validation_elbo": -90.0} if validated else {}
    records = [{"step": 5 * i, "loss": 1e3 / i, "nll": 9e2 / i, "kl": 1e2 / i, **extra} for i in range(1, count + 1)]
    training_curve.figure(tmp_path / "training.png", records)
    assert decoded(tmp_path / "training.png").std() > 0
    with pytest.raises(InputError, match="no training record to draw"):
        training_curve.figure(tmp_path / "training.png", [])
