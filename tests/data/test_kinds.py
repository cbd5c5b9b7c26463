"""The kinds of data: how each is recognised, and the settings it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvae import InputError, Source
from jaxvae.data import kinds


def test_each_kind_of_data_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text("{}")
    for data, kind in {
        "phantom": kinds.PHANTOM,
        "fashion_mnist:d": kinds.FASHION_MNIST,
        str(tmp_path): kinds.VOLUMES,
        "folder": kinds.IMAGES,
    }.items():
        source = Source(data=data)
        assert kinds.kind_of(source) is kind
        config = {"data": kinds.to_config(source), "volumes": {} if kind is kinds.VOLUMES else None}
        assert kinds.kind_of_config(config) is kind


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(scaling=2), "scaling=2: only goes with `data` fashion_mnist:DIR, and `data` is 'phantom'"),
        (Source(test=0.5), "test=0.5: only goes with a folder of images or prepared volumes"),
        (Source("fashion_mnist:d", hold_out=1, size=(8,)), r"size=\(8,\): FashionMNIST is 28x28"),
        (Source("fashion_mnist:d"), "`hold_out` is missing"),
        (Source(size=(8, 16)), r"size=\(8, 16\): phantoms are as wide as high"),
        (Source("phantoms"), "phantoms: no such folder; did you mean phantom"),
        (Source(validation=1.0), "validation=1.0: must be a fraction"),
    ],
)
def test_settings_that_do_not_fit_the_kind_are_refused(source: Source, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kinds.open_splits(source)


def test_prepared_volumes_refuse_a_size(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text("{}")
    with pytest.raises(InputError, match="volumes have the size they were prepared with"):
        kinds.open_splits(Source(str(tmp_path), size=(8,)))
