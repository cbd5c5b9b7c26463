"""`jaxvae prepare`: data sets that are complete already."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvae.cli import main
from jaxvae.data.fashion_mnist.idx_files import SHA256 as FASHION_MNIST_FILES


def test_complete_data_are_not_downloaded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in FASHION_MNIST_FILES:
        (tmp_path / name).touch()
    assert main(["prepare", f"fashion_mnist:{tmp_path}"]) == 0
    expected = (
        f"{tmp_path}: FashionMNIST is there; next: `jaxvae train RUN --data fashion_mnist:{tmp_path} --hold-out 8`"
    )
    assert capsys.readouterr().out.strip() == expected
