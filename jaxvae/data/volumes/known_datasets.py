"""Layouts of known data sets: patterns for the scans and their masks."""

from dataclasses import dataclass, field
from pathlib import Path

from jaxvae.data.volumes import bids, pairing, patterns
from jaxvae.data.volumes.pairing import Mask
from jaxvae.errors import ArgumentError


@dataclass(frozen=True)
class Layout:
    """Patterns of a data set, relative to its folder."""

    images: str  # the pattern of the scans; may contain `{modality}`
    brains: str | None = None  # the pattern of the brain masks, with `{0}`, `{1}` for the stars of `images`
    lesions: str | None = None  # likewise of the lesion masks
    # The pattern of the patient's name, likewise. If None, it is the scan's folder if every scan has a folder, else
    # the scan's name.
    patient: str | None = None
    modality: str = ""  # the default of `{modality}`
    synonyms: dict[str, str] = field(default_factory=dict)  # other names of modalities, from earlier releases
    needs_lesions: bool = True  # a scan without a lesion mask is rejected; otherwise it counts as healthy
    entities: bool = False  # masks without a pattern are found by their BIDS entities

    def images_of(self, modality: str | None) -> str:
        """The pattern of the scans of one modality, or of the default one."""
        name = modality or self.modality
        return self.images.replace("{modality}", self.synonyms.get(name, name))


def _brats(images: str, lesions: str, patient: str, *, modality: str = "t2w") -> Layout:
    """A release of BraTS since 2023, which also knows the modalities by their earlier names."""
    earlier = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
    return Layout(f"**/{images}", None, f"{{0}}{lesions}", patient, modality, earlier)


# `auto` takes the first that fits, so narrow patterns come before wide ones.
LAYOUTS = {
    "hcp": Layout("*/T1w/{modality}_acpc_dc_restore_brain.nii.gz", patient="{0}", modality="T2w"),
    # BraTS 2023 and later: BraTS-GLI-00000-000, of which 000 is the time point; also MEN, MET, PED, SSA.
    "brats2023": _brats("BraTS-*-*-*-{modality}.nii*", "BraTS-{1}-{2}-{3}-seg.nii{4}", "BraTS-{1}-{2}"),
    "brats2024goat": _brats("BraTS-GoAT-*-{modality}.nii*", "BraTS-GoAT-{1}-seg.nii{2}", "BraTS-GoAT-{1}"),
    "brats2024rt": _brats(
        "BraTS-MEN-RT-*-*_{modality}.nii*", "BraTS-MEN-RT-{1}-{2}_gtv.nii{3}", "BraTS-MEN-RT-{1}", modality="t1c"
    ),
    "bids": Layout("sub-*/**/sub-*_{modality}.nii*", patient="{0}", modality="T2w", needs_lesions=False, entities=True),
    # BraTS 2017 to 2021: Brats17_2013_2_1, BraTS20_Training_001, BraTS2021_00000.
    "brats2017": Layout("**/*_{modality}.nii*", None, "{0}{1}_seg.nii{2}", "{1}", "t2"),
    "isles2015": Layout(
        "**/VSD.Brain.*.MR_{modality}.*/VSD.Brain.*.MR_{modality}.*.nii",
        lesions="{0}VSD.Brain.*OT.*/VSD.Brain.*OT.*.nii",
        patient="{0}",
        modality="T2",
    ),
    "ixi": Layout("**/IXI*[-_]{modality}.nii.gz", patient="IXI{1}", modality="T1"),
}


def layout_of(directory: Path, name: str, modality: str | None) -> Layout:
    """The layout by its name.

    `auto` is the first with such scans in the folder, else every volume below it.
    """
    if name != "auto":
        return LAYOUTS[name]
    for known in LAYOUTS.values():
        if known.entities and modality is not None and modality.islower():
            continue  # BIDS writes T2w and FLAIR; sub-01_t2 beside sub-01_seg is a BraTS layout.
        if patterns.matches(directory, known.images_of(modality))[0]:
            return known
    if modality is not None:
        problem = f"none of the layouts {', '.join(LAYOUTS)} has such scans in {directory}; pass `images`"
        raise ArgumentError("modality", modality, problem)
    return Layout("**/*")


def pair_masks(
    directory: Path, layout: Layout, matches: list[tuple[Path, tuple[str, ...]]], *, needs_brains: bool
) -> tuple[list[Mask], list[Mask]]:
    """The brain masks and the lesion masks of scans that `patterns.matches` found."""
    images, stars = [path for path, _ in matches], [stars for _, stars in matches]
    brains = pairing.pair(directory, layout.brains, images, stars, needed=needs_brains)
    lesions = pairing.pair(directory, layout.lesions, images, stars, needed=layout.needs_lesions)
    if layout.entities and images:
        there = bids.masks_below(directory, bids.parse(images[0]).suffix)
        brains = brains if layout.brains else bids.pair(directory, images, there, "brain")
        lesions = lesions if layout.lesions else bids.pair(directory, images, there, "lesion")
    return brains, lesions
