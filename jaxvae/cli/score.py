"""`jaxvae score`: maps of a run's own test images, or of any images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxvae.cli.source import from_config, open_splits, preparation
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from jaxvae.data.dataset import Dataset
    from jaxvae.results import Scored

MapName = Literal["rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi"]


@dataclass(frozen=True)
class Score:
    """Score images pixel by pixel: a folder or a file, or without one the run's own test images.

    Of every image: a map a score (float32, at the model's resolution), an overlay, and a binary mask once a threshold
    is known; and one line in samples.jsonl with the scores of the whole image.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    images: Annotated[Path | None, tyro.conf.Positional] = None
    """a folder of images, or one image; prepared as the run's own were"""
    out: Path | None = None
    """where to write [RUN/scores, or RUN/scores/NAME for a folder NAME]"""
    maps: tuple[MapName, ...] = ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi")
    """which maps"""
    format: Literal["npy", "tiff"] = "npy"
    """of the maps of a folder"""
    threshold: float | None = None
    """of the binary mask [what 1 % of healthy validation pixels exceed, once `jaxvae evaluate` has measured it]"""
    batch_size: int = 64
    """images at a time"""

    def execute(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size}: must be positive")
        if not self.maps:
            raise InputError("--maps: name at least one map")
        from jaxvae import checkpoint, results

        run = checkpoint.load(self.run)
        source = from_config(run.config["data"])
        if self.images is None:
            dataset, out, where = open_splits(source).test, self.out or self.run / "scores", source.data
        else:
            from jaxvae.data import images

            dataset, where = images.read_folder(self.images, preparation=preparation(source)), str(self.images)
            out = self.out or self.run / "scores" / self.images.absolute().stem
        results.check_shape(run, dataset.images, where)
        scored = results.score_dataset(run, dataset.images, maps=self.maps, batch_size=self.batch_size)
        if self.images is None:
            results.write_scores(out, dataset, scored)
        else:
            self._write_files(out, dataset, scored)
        print(
            f"{out}: {len(dataset)} images scored ({', '.join(self.maps)}); the numbers of each are in samples.jsonl"
        )

    def _write_files(self, out: Path, dataset: Dataset, scored: Scored) -> None:
        import numpy as np
        from tqdm import tqdm

        from jaxvae import results
        from jaxvae.data import image_files
        from jaxvae.report import panels

        out.mkdir(parents=True, exist_ok=True)
        shown = "combi" if "combi" in self.maps else self.maps[0]
        threshold = self._threshold(shown)
        # Full colour at the threshold's twofold; where none is known, at what the images themselves reach.
        high = 2 * threshold if threshold else float(np.quantile(scored.maps[shown], 0.995)) or 1.0
        for i, name in enumerate(tqdm(dataset.names, unit="image", desc="write", disable=None, dynamic_ncols=True)):
            stem = str(out / Path(name).with_suffix(""))
            for map_name, values in scored.maps.items():
                image_files.write_map(f"{stem}_{map_name}.{self.format}", values[i])
            image_files.write_png(
                f"{stem}_overlay.png", panels.overlay(dataset.images[i], scored.maps[shown][i], high=high)
            )
            if threshold is not None:
                mask = (scored.maps[shown][i, :, :, 0] >= threshold).astype(np.uint8) * 255
                image_files.write_png(f"{stem}_mask.png", mask)
        results.write_samples(out / "samples.jsonl", dataset, scored)

    def _threshold(self, name: str) -> float | None:
        path = self.run / "evaluation.json"
        if self.threshold is not None or not path.is_file():
            return self.threshold
        return json.loads(path.read_text())["thresholds"].get(name, {}).get("0.01")
