"""The training and test scans of `experiments.brain_mri` as prepared volumes.

Written below the experiment's folder: LGG's TIFF slices as NIfTI volumes, one per patient; healthy brains with inserted
lesions; and one cache per task, size and part.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np

from jaxvae.data.images import image_files
from jaxvae.data.volumes import cache_writer, scans, volume_files
from jaxvae.data.volumes.scans import Rejected, Scan
from jaxvae.data.volumes.slices import Slicing
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from experiments.brain_mri import Config

HELD_OUT = 8  # IXI subjects with inserted lesions
KINDS = {"bright": 1.5, "dark": -1.5}  # added by a lesion, in standard deviations of the brain


class Prepared(NamedTuple):
    """Caches of one task: the training cache, and the test caches by name."""

    train: Path
    tests: dict[str, Path]


def prepare(task: str, config: Config, size: int) -> Prepared:
    """The caches of a task; missing ones are made."""
    made = config.work / "scans"
    parts: dict[str, list[Scan]]
    if task == "paper":
        missing = [f"--{name}" for name in ("hcp", "brats", "isles") if getattr(config, name) is None]
        if missing:
            raise InputError(f"{' '.join(missing)}: missing; task paper needs the folders of its data sets")
        parts = {
            "train": find(config.hcp, "hcp"),
            "BraTS-2017": find(config.brats, "brats2017"),
            "ISLES-2015": find(config.isles, "isles2015"),
        }
    elif task == "t1":
        brains = ixi(config.data, masks=True)
        parts = {
            "train": brains[HELD_OUT:],
            "IXI T1, inserted": [insert(scan, made / "inserted", n) for n, scan in enumerate(brains[:HELD_OUT])],
        }
    elif task == "head":
        parts = {"train": ixi(config.data, masks=False), "LGG T1": lgg(config.data, made / "lgg", channel=0)}
    else:
        brats = {"brains": "{0}/{1}/brainmask.nii.gz", "lesions": "{0}/{1}/OTMultiClass.nii.gz"}
        parts = {
            "train": lgg(config.data, made / "lgg", channel=1),
            "BraTS-2015 FLAIR": find(config.data / "brats2015-subset", images="*/*/Flair*.nii.gz", **brats),
            "open MS FLAIR": find(
                config.data / "open-ms-lesions", images="**/FLAIR*.nii.gz", lesions="{0}GOLD*.nii.gz"
            ),
        }
    paths = {
        name: config.work / "caches" / f"{task}-{size}" / name.replace(", ", "_").replace(" ", "_") for name in parts
    }
    # LGG's scans have a third as many planes as the others, but a head's cross-section changes little between planes.
    slicing = Slicing(size=size, clip=1.5 if task == "paper" else None)
    for name, found in parts.items():
        whole(cache_writer.prepare(paths[name], found, [], slicing))
    return Prepared(paths.pop("train"), paths)


def find(*where: Any, **patterns: Any) -> list[Scan]:
    """`scans.find`, but a skipped scan is an error: results are of all scans of a data set."""
    found, left_out = scans.find(*where, **patterns)
    whole(left_out)
    return found


def whole(left_out: list[Rejected]) -> None:
    """Raise InputError if a scan was left out."""
    if left_out:
        raise InputError(f"{left_out[0].reason} ({len(left_out)} scans would be left out); complete the data set")


def ixi(data: Path, *, masks: bool) -> list[Scan]:
    """IXI's T1 volumes, with brain masks or as whole heads."""
    brains = "DLMUSE/{0}_T1_DLMUSE.nii.gz" if masks else None
    return find(data / "ixi-t1-2mm", images="T1/*_T1.nii.gz", brains=brains)


def lgg(data: Path, made: Path, *, channel: int) -> list[Scan]:
    """LGG's slices of one channel (0: T1 before contrast, 1: FLAIR) as volumes of 1x1x5 mm, with their lesions.

    The data set does not give the size of its voxels or the side of the patient; both are assumed.
    """
    found = []
    for patient in sorted(path for path in (data / "lgg-mri-segmentation" / "kaggle_3m").iterdir() if path.is_dir()):
        paths = {kind: made / f"{patient.name}_{kind}.nii.gz" for kind in (f"channel{channel}", "lesion")}
        if not all(path.is_file() for path in paths.values()):
            names = sorted(
                (path for path in patient.glob("*.tif") if not path.stem.endswith("_mask")),
                key=lambda path: int(path.stem.rpartition("_")[2]),
            )
            slices = np.stack([image_files.read(path)[..., channel] for path in names], axis=-1)
            masks = [image_files.read(path.with_name(f"{path.stem}_mask.tif"))[..., 0] > 0 for path in names]
            for path, stored in zip(paths.values(), (slices, np.stack(masks, axis=-1)), strict=True):
                save(path, stored[::-1].swapaxes(0, 1).astype(np.uint8), np.diag([1.0, 1.0, 5.0, 1.0]))
        image, lesion = paths.values()
        found.append(Scan(patient.name, patient.name, image, None, lesion))
    return found


def insert(scan: Scan, made: Path, number: int) -> Scan:
    """Insert three soft-edged lesions of 5 to 11 mm radius, bright in scans of even number and dark in the others."""
    image, lesion = (made / f"{volume_files.stem(scan.image)}_{kind}.nii.gz" for kind in ("image", "lesion"))
    if not (image.is_file() and lesion.is_file()):
        from scipy import ndimage

        volume = volume_files.read(scan.image)
        assert scan.brain is not None
        brain = volume_files.read_mask(scan.brain, volume)
        rng = np.random.default_rng(number)
        depth = np.asarray(ndimage.distance_transform_edt(brain, sampling=volume.spacing))
        places = np.argwhere(depth > 12)
        grid = np.indices(brain.shape).reshape(3, -1).T * volume.spacing
        extent = np.zeros(brain.shape)
        for centre in places[rng.choice(len(places), 3, replace=False)]:
            # An ellipsoid whose change fades over a rim of 2 mm.
            axes = rng.uniform(5, 11) * rng.uniform(0.8, 1.2, 3)
            distance = np.linalg.norm((grid - centre * volume.spacing) / axes, axis=1).reshape(brain.shape)
            extent = np.maximum(extent, np.clip((1 - distance) * axes.min() / 2 + 0.5, 0, 1))
        change = list(KINDS.values())[number % 2] * volume.voxels[brain].std()
        changed = np.clip(volume.voxels + change * extent * brain, 0, None)
        volume_files.write(image, changed, volume)
        volume_files.write(lesion, ((extent > 0.5) & brain).astype(np.float32), volume)
    return Scan(scan.name, scan.patient, image, scan.brain, lesion)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    nib.Nifti1Image(voxels, affine).to_filename(part)
    part.rename(path)
