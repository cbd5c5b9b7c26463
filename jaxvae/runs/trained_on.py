"""trained_on.jsonl: the images or scans that a run was trained on.

They are recorded so that the run is not tested on them. One line per training or validation image, or per volume: its
file, links followed, and its sketch. A sketch is three numbers computed from the pixels (`dataset.sketches`). It
recognises an image in another folder or under another name.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxvae import files
from jaxvae.data.dataset import Splits, contents, is_among, is_sketch, sketches
from jaxvae.data.kinds import IMAGES, VOLUMES
from jaxvae.data.volumes import cache
from jaxvae.errors import InputError
from jaxvae.runs.run import Run

FILE = "trained_on.jsonl"


def write(run: Run, splits: Splits) -> None:
    """Write the file into a run, if missing; empty for data that is not in image folders."""
    if (run.run_dir / FILE).is_file():
        return
    data, parts, found = Path(run.config["data"]["data"]), (splits.train, splits.validation), []
    if run.kind is VOLUMES:
        opened, patients = cache.open_cache(data), {patient for part in parts for patient in part.groups}
        records = [record for record in opened.volumes if record["patient"] in patients]
        found = [(record["image"], contents(cache.images_of(opened, record))) for record in records]
    elif run.kind is IMAGES:
        names = [data / name for part in parts for name in part.names]
        found = list(zip(names, np.concatenate([sketches(part.images) for part in parts]), strict=True))
    rounded = ((file, [float(f"{number:.12g}") for number in sketch]) for file, sketch in found)
    files.write_lines(run.run_dir / FILE, [{"file": os.path.realpath(file), "sketch": it} for file, it in rounded])


def refuse(run_dir: Path, found: Mapping[str, Sequence[float]], where: Path) -> None:
    """Raise InputError for images that the run was trained on, by file or pixels.

    Args:
      found: the sketch of each image, or `contents` of each volume, by file.
      where: the folder that holds them.
    """
    way_out = "remove it, and train the run once more with the same settings"
    lines = files.read_lines(run_dir / FILE, {"file": str, "sketch": list}, way_out=way_out)
    if not all(is_sketch(line["sketch"]) for line in lines):
        raise InputError(f"{run_dir / FILE}: damaged, a sketch is not 3 numbers; {way_out}")
    theirs, sketched = {line["file"] for line in lines}, np.array([line["sketch"] for line in lines])
    same_pixels = is_among(np.array(list(found.values())).reshape(-1, 3), sketched.reshape(-1, 3))
    for file, same in zip(found, same_pixels, strict=True):
        if same or os.path.realpath(file) in theirs:
            way_out = "name another folder, or none for its own test"
            raise InputError(f"{where}: holds {file}, which the run was trained on; {way_out}")
