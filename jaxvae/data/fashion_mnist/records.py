"""FashionMNIST as a tensorflow-datasets builder that needs no TensorFlow.

The builder of tensorflow-datasets itself unpacks and encodes with TensorFlow. This one stores plain tensors as
array_record, which has random access. Other formats are refused (`jaxvae.data.record_format`).
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxvae.data import record_format
from jaxvae.data.fashion_mnist import idx_files
from jaxvae.data.fashion_mnist.idx_files import FILES, RECORDS, read_idx


class FashionMnistRecords(tfds.core.GeneratorBasedBuilder):
    """70,000 grey images of 28x28 pixels in ten classes, with their indices.

    The four files are downloaded, or read from `manual_dir` if it holds them under their official names.
    tensorflow-datasets verifies them against its own checksums.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, file_format: Any = None, **kwargs: Any) -> None:
        super().__init__(file_format=record_format.checked(file_format), **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="FashionMNIST, stored without TensorFlow.",
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8, encoding="bytes"),
                    "label": tfds.features.Scalar(dtype=np.int64),
                    # Records are in the order of a hash; this is the example's position in the official file.
                    "index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        names = [name for pair in FILES.values() for name in pair]
        paths = dl_manager.download({name: f"{idx_files.URL}/{name}.gz" for name in names})
        return {split: self._generate_examples(*(str(paths[name]) for name in pair)) for split, pair in FILES.items()}

    def _generate_examples(self, images: str, labels: str) -> Iterator[tuple[int, dict[str, Any]]]:
        pairs = zip(read_idx(images), read_idx(labels), strict=True)
        for index, (image, label) in enumerate(pairs):
            yield index, {"image": image[..., None], "label": label, "index": index}


def prepare(directory: Path) -> None:
    """Write the records to `directory`, from official or downloaded files."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=directory, try_download_gcs=False)
    FashionMnistRecords(data_dir=directory).download_and_prepare(download_config=config)


def read(directory: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(images [N, H, W], classes [N]), uint8, in the order of the official files."""
    builder: Any = tfds.builder_from_directory(directory / RECORDS)
    source = builder.as_data_source(split)
    images, classes = np.empty((len(source), 28, 28), np.uint8), np.empty(len(source), np.uint8)
    for example in source.__getitems__(range(len(source))):
        images[example["index"]] = example["image"][..., 0]
        classes[example["index"]] = example["label"]
    return images, classes
