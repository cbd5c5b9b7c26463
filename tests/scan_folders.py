"""Small folders of brain volumes on the disk, as a user would bring them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (24, 28, 16)


def head(seed: int, *, lesion: bool = False, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, ...]:
    """(a skull-stripped brain, its mask, its lesion): an ellipsoid with random noise, RAS, float32 and bool."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    brain = np.square(grid / np.reshape([0.75, 0.85, 0.8], (3, 1, 1, 1))).sum(axis=0) < 1
    drawn = np.square((grid - 0.25) / 0.25).sum(axis=0) < 1 if lesion else np.zeros(shape, bool)
    voxels = 100 + 20 * np.cos(3 * grid[0]) + rng.normal(0, 5, shape) + 80 * drawn
    return np.where(brain, voxels, 0).astype(np.float32), brain, drawn & brain


def write_volume(path: Path, voxels: np.ndarray, codes: str = "LPS") -> Path:
    """Stored in the order of `codes`, 2 mm a voxel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    stored = nib.orientations.apply_orientation(voxels.astype("u1") if voxels.dtype == bool else voxels, turn)
    affine = np.diag([2, 2, 2, 1.0]) @ nib.orientations.inv_ornt_aff(turn, voxels.shape)
    nib.Nifti1Image(stored, affine).to_filename(path)
    return path


def write_patients(folder: Path, *, healthy: int = 6, sick: int = 4) -> Path:
    """`<patient>/flair.nii.gz`, `brain.nii.gz` and `lesion.nii.gz`; the lesions of the healthy are empty."""
    for i in range(healthy + sick):
        voxels, brain, lesion = head(i, lesion=i >= healthy)
        for name, values in (("flair", voxels), ("brain", brain), ("lesion", lesion)):
            write_volume(folder / f"p{i:02d}" / f"{name}.nii.gz", values, "LPS" if i % 2 else "PSR")
    return folder


PATTERNS = {"images": "*/flair.nii.gz", "brains": "{0}/brain.nii.gz", "lesions": "{0}/lesion.nii.gz"}
FLAGS = [word for name, pattern in PATTERNS.items() for word in (f"--{name}", pattern)]
