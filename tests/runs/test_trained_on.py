"""trained_on.jsonl: which images a run was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvae import InputError
from jaxvae.runs import trained_on


@pytest.mark.parametrize("line", ["{", "[]", '{"file": 1, "sketch": [1, 2, 3]}', '{"file": "a", "sketch": [1, 2]}',
                                  '{"file": "a", "sketch": [1, 2, null]}'])  # fmt: skip
def test_a_damaged_list_of_training_images_is_reported(tmp_path: Path, line: str) -> None:
    (tmp_path / trained_on.FILE).write_text(line + "\n")
    with pytest.raises(InputError, match=r"trained_on\.jsonl.*; remove it, and train the run once more") as refused:
        trained_on.refuse(tmp_path, {"a.png": [1.0, 2.0, 3.0]}, Path("other"))
    assert "\n" not in str(refused.value)
