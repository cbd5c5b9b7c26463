"""A run: one folder that holds all of it.

config.json        how it was made (`jaxvae.runs.config`)
metrics.jsonl      one record per logged step
checkpoints/       last/ to continue from; best/, by validation ELBO, if training stops early
fitted/            the states of scores that are fitted on healthy images (`jaxvae.runs.score_states`)
thresholds.json    the scores of its healthy validation images and the range of its training images, measured when
                   training ends (`jaxvae.evaluation.thresholds`)
trained_on.jsonl   the images it was trained on, by file and by pixels (`jaxvae.runs.trained_on`)
evaluation.json    the metrics on its test images; those on other images are in on/NAME/
scores/ report/    what was computed from it
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvae import files
from jaxvae.data.kinds import Kind, Source, from_config, kind_of_config, same_images
from jaxvae.errors import ArgumentError, InputError
from jaxvae.models.model import Model, param_shapes
from jaxvae.objectives import NamedObjective
from jaxvae.runs import checkpoint, run_scores, score_names, score_states
from jaxvae.runs.config import EARLIER, Config, model_from_config, objective_of, read_config, total_steps
from jaxvae.scores.batches import Scores
from jaxvae.types import Params

# Entries of config.json about the images that are not settings.
IMAGES = ("images.train", "images.validation", "images.test", "images.image_names", "images.contents")


class Run(NamedTuple):
    """A trained run, opened with `load`."""

    model: Model
    params: Params
    step: int  # of the checkpoint that the parameters come from
    config: Config  # config.json
    run_dir: Path

    @property
    def source(self) -> Source:
        """Which images the run was trained on, and how they are prepared."""
        return from_config(self.config["data"])

    @property
    def kind(self) -> Kind:
        """The kind of data that the run was trained on."""
        return kind_of_config(self.config)

    @property
    def objective(self) -> NamedObjective:
        """The objective that the run was trained with."""
        return objective_of(self.config)

    @property
    def maps(self) -> tuple[str, ...]:
        """Those of `scores.MAPS` that go with the run's model and objective."""
        return score_names.maps_of(self.model, self.objective)

    def score(
        self,
        images: np.ndarray | Iterable[np.ndarray],
        maps: Sequence[str] | None = None,
        *,
        reconstructions: bool = False,
        batch_size: int | None = None,
    ) -> Scores:
        """Score any number of images, prepared in the same way as the run's own images.

        Args:
          images: [N, H, W, C] or [N, H, W], uint8 (divided by 255) or float; or images of several sizes, if the run
            was trained on a folder of images and resizes them.
          maps: names of `scores.known_maps`, the fitted ones after `fit_scores`; None: the run's `maps`.
          reconstructions: return the reconstructions too.
          batch_size: images at a time, on each device of this process; see `score_batches`.

        Returns:
          Maps and image scores on the host, in the order of the images and at the size of the model.

        Raises:
          InputError: an image does not fit the model once prepared, one of its scores is NaN or infinite, or the run
            does not have a score.
        """
        prepared = run_scores.prepare_images(self, images)
        names = [f"images[{i}]" for i in range(len(prepared))]
        settings = {"reconstructions": reconstructions, "batch_size": batch_size}
        return run_scores.score_finite(self, prepared, names, maps=self.maps if maps is None else maps, **settings)


def refuse_among_images(run: Run, out: Path) -> None:
    """Raise ArgumentError if an output folder is inside the folder of the run's own images."""
    own = Path(run.config["data"]["data"])
    if own.is_absolute() and out.resolve().is_relative_to(own.resolve()):
        raise ArgumentError("out", out, f"is inside {own}, the images of the run; name another folder")


def claim(run_dir: Path, config: Config) -> None:
    """Write config.json into a new folder, or compare it with the one there.

    A run that exists may only be trained longer, and only if its learning rate does not depend on the length. A run
    without a checkpoint is made again.

    Raises:
      InputError: the folder holds something else, or a run made with another configuration.
    """
    try:
        os.fspath(run_dir).encode()
    except UnicodeEncodeError:
        raise InputError(f"{run_dir}: the folder name is not valid UTF-8; name another folder") from None
    if files.claim(run_dir, "config.json", config, what="a run") is None:
        return
    there = read_config(run_dir)
    if checkpoint.latest_step(run_dir / "checkpoints" / "last") is None:
        with files.locked(run_dir):
            for name in ("metrics.jsonl", "thresholds.json", "trained_on.jsonl"):
                (run_dir / name).unlink(missing_ok=True)
            shutil.rmtree(run_dir / score_states.FOLDER, ignore_errors=True)
            files.write_json(run_dir / "config.json", config)
        return
    before, now = EARLIER | files.flat(there), files.flat(config)
    same = same_images(there, config)
    # The settings of the images first, because the others depend on the images too. The folder may have moved.
    of_data = [name for name in now if name.startswith("data.") and not (same and name == "data.data")]
    way_out = "use those settings again to continue it, or name a new folder"
    files.refuse_other_settings(run_dir, before, now, of_data, way_out=way_out)
    named = "images.image_names" in before
    if same is False or (same is None and named and before["images.image_names"] != now["images.image_names"]):
        way_out = "bring those back to continue it, or name a new folder"
        raise InputError(f"{run_dir}: was made from other images than there are now in {now['data.data']}; {way_out}")
    free = ("jaxvae", "epochs", "steps", *of_data, "data.data", "images.contents", *(IMAGES if named else ()))
    rest = [name for name in now if name not in free and name != "train.decay_steps"]
    files.refuse_other_settings(run_dir, before, now, rest, way_out=way_out)
    _refuse_length(run_dir, there, config)  # Before the steps of the decay, which depend on the length.
    files.refuse_other_settings(run_dir, before, now, now.keys() & {"train.decay_steps"}, way_out=way_out)
    if there != config:
        files.write_json(run_dir / "config.json", config)


def _refuse_length(run_dir: Path, there: Config, here: Config) -> None:
    """Raise ArgumentError if a run is to be shorter than before, or longer with a schedule that has ended."""
    unit = "epochs" if here.get("steps") is None else "steps"
    before, now = total_steps(there), total_steps(here)
    was = there[unit] if there.get(unit) else f"{before} steps"
    if now < before:
        problem = f"{run_dir} was made for {was}; give as many or more, or name a new folder"
        raise ArgumentError(unit, here[unit], problem)
    if now > before and here["train"]["schedule"] == "cosine":
        problem = f"the cosine schedule of {run_dir} ended with step {before}; name a new folder"
        raise ArgumentError(unit, here[unit], problem)


def load(run_dir: str | os.PathLike[str]) -> Run:
    """Open a run: its model and its best parameters, or its last.

    Raises:
      InputError: not a run folder, no checkpoint in it yet, or one of another model.
    """
    config = read_config(run_dir)
    model = model_from_config(config["model"])
    directory, step = chosen(run_dir)
    params = checkpoint.restore_params(directory, step, param_shapes(model))
    return Run(model, params, step, config, Path(run_dir))


def chosen(run_dir: str | os.PathLike[str]) -> tuple[Path, int]:
    """Folder and step that `load` opens. Raises InputError if there is none yet."""
    for directory in (Path(run_dir) / "checkpoints" / name for name in ("best", "last")):
        if (step := checkpoint.latest_step(directory)) is not None:
            return directory, step
    raise InputError(f"{run_dir}: has no checkpoint yet; train it with the command that began it")
