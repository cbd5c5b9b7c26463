"""Prepared volumes as a tensorflow-datasets builder that needs no TensorFlow.

    builder = VolumeSlices(cache="PREPARED", data_dir="RECORDS")
    builder.download_and_prepare()
    source = builder.as_data_source("slices")   # random access without TensorFlow

The records are array_record; other formats are refused (`jaxvae.data.record_format`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxvae.data import record_format
from jaxvae.data.volumes.cache import dataset, open_cache


class VolumeSlices(tfds.core.GeneratorBasedBuilder):
    """Each slice of a cache with its brain, lesion, patient, volume and index.

    Args:
      cache: the folder that `jaxvae prepare` made.
      file_format: array_record or None.
      kwargs: further arguments of any builder, such as `data_dir`.

    Raises:
      InputError: there is no finished cache, or another file format was given.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, cache: str | Path, file_format: Any = None, **kwargs: Any) -> None:
        file_format = record_format.checked(file_format)
        self._cache = open_cache(cache)
        # Each cache has its own folder below data_dir.
        config = tfds.core.BuilderConfig(name=self._cache.hash[:16])
        super().__init__(config=config, file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        height, width, channels = self._cache.images.shape[1:]

        def tensor(depth: int, dtype: Any) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=(height, width, depth), dtype=dtype, encoding="bytes")

        return tfds.core.DatasetInfo(
            builder=self,
            description="Axial slices of brain volumes, as jaxvae prepared them.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tensor(channels, np.float32),
                    "brain": tensor(1, np.uint8),
                    "lesion": tensor(1, np.uint8),
                    "anomalous": tfds.features.Scalar(dtype=np.bool_),
                    "patient": tfds.features.Text(),
                    "name": tfds.features.Text(),
                    # Records are in the order of a hash; this is the slice's position in the cache.
                    "index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"slices": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        slices = dataset(self._cache)
        nowhere = np.zeros((*slices.images.shape[1:3], 1), np.uint8)
        for index, image in enumerate(slices.images):
            example = {
                "image": image,
                "brain": self._cache.brains[index].astype(np.uint8),
                "lesion": nowhere if slices.masks is None else slices.masks[index].astype(np.uint8),
                "anomalous": bool(slices.labels[index]),
                "patient": slices.groups[index],
                "name": slices.names[index],
                "index": index,
            }
            yield index, example
