"""Masks found by patterns belong to one scan each."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvae.data.volumes import pairing
from jaxvae.errors import InputError


def paired(folder: Path, pattern: str, *stars: str | tuple[str, ...], needed: bool = False) -> list[str | None]:
    """The mask of each scan below the folder, or the reason why it has none."""
    own = [(one,) if isinstance(one, str) else one for one in stars]
    images = [folder / "".join((*one, ".image")) for one in own]
    found = pairing.pair(folder, pattern, images, own, needed=needed)
    return [mask.relative_to(folder).as_posix() if isinstance(mask, Path) else mask and str(mask) for mask in found]


@pytest.fixture
def made(tmp_path):
    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def test_one_mask_or_none(made):
    folder = made("b/c/y_seg.nii.gz", "b/c/y_t2.nii.gz")
    assert paired(folder, "{0}{1}_seg.nii.gz", ("b/c/", "y")) == ["b/c/y_seg.nii.gz"]
    assert paired(folder, "{0}_seg.nii", "a") == [None]
    assert pairing.pair(folder, None, [folder], [()], needed=True) == [None]
    assert paired(folder, "{0}_seg.nii", "a", needed=True) == ["its mask a_seg.nii is missing"]
    [several] = paired(folder, "{0}y_*", "b/c/")
    assert several == "2 masks at b/c/y_*, such as y_seg.nii.gz; change the pattern to match one"


@pytest.mark.parametrize(
    ("pattern", "own", "longer"),
    [
        ("{0}*_mask.nii", "run-1", "run-10_mask.nii"),
        ("{0}*.nii", "a1", "a10.nii"),
        ("{0}*.nii", "ana", "anabel.nii"),
        ("{0}*.nii", "p1", "p1b.nii"),
        ("{0}*/mask.nii", "p1", "p10/mask.nii"),
        ("masks/*{0}.nii", "1", "masks/11.nii"),
        ("masks/*{0}.nii", "ann", "masks/joann.nii"),
        ("**/{0}*.nii", "a1", "deep/er/a10.nii"),
    ],
)
def test_a_longer_name_is_a_different_name(made, pattern, own, longer):
    assert paired(made(longer), pattern, own) == [None]


@pytest.mark.parametrize(
    ("pattern", "own", "mask"),
    [
        ("{0}*_mask.nii", "run-1", "run-1_mask.nii"),
        ("{0}*_mask.nii", "run-1", "run-1_lesion_mask.nii"),
        ("{0}*.nii", "p", "p-1.nii"),
        ("{0}*/mask.nii", "p1", "p1 left/mask.nii"),
        ("masks/*{0}.nii", "1", "masks/p1.nii"),
        ("masks/*_{0}_*.nii", "1", "masks/a_1_b.nii"),
        ("{0}*.nii", "folder/", "folder/lesion.nii"),
        ("{0}0.nii", "a1", "a10.nii"),
        ("{0}[0-9].nii", "a1", "a17.nii"),
        ("**/{0}_mask.nii", "a", "deep/er/a_mask.nii"),
    ],
)
def test_a_star_does_not_continue_the_name(made, pattern, own, mask):
    assert paired(made(mask), pattern, own) == [mask]


def test_a_mask_belongs_to_the_scan_with_the_longest_name(made):
    folder = made("a_post_mask.nii")
    assert paired(folder, "{0}*_mask.nii", "a", "a_post") == [None, "a_post_mask.nii"]
    made("a_mask.nii")
    assert paired(folder, "{0}*_mask.nii", "a", "a_post") == ["a_mask.nii", "a_post_mask.nii"]


@pytest.mark.parametrize("pattern", ["{0}_*_mask.nii", "*/{0}_*_mask.nii", "{0}*_left/mask.nii", "**/{0}_*_mask.nii"])
def test_a_star_does_not_match_other_scans(made, pattern):
    folder = made("a_post_mask.nii", "x/a_post_mask.nii", "a_post_left/mask.nii")
    assert paired(folder, pattern, "a") != [None]
    [first, second] = paired(folder, pattern, "a", "a_post")
    assert first is None
    assert second == ("a_post_left/mask.nii" if "left" in pattern else None)


def test_a_mask_among_the_scans_has_no_mask(made):
    """`score` takes every volume as a scan, so masks are among them."""
    folder = made("a.image", "a_brain.image")
    assert paired(folder, "{0}_*.image", "a", "a_brain") == ["a_brain.image", None]
    assert paired(folder, "{0}*.image", "a", "a_brain") == ["a_brain.image", None]


def test_a_mask_that_fits_two_names_is_refused(made):
    [first, second] = paired(made("ab_cd.nii"), "*{0}*.nii", "ab", "cd")
    assert first == "ab_cd.nii is at *ab*.nii and at *cd*.nii; change the pattern to match one scan"
    assert second == "ab_cd.nii is at *cd*.nii and at *ab*.nii; change the pattern to match one scan"


def test_scans_with_the_same_text_have_the_same_mask(made):
    folder = made("p_seg.nii")
    assert paired(folder, "{0}_seg.nii", ("p", "_t1"), ("p", "_t2")) == ["p_seg.nii", "p_seg.nii"]


def test_brackets_in_a_name_are_literal(made):
    folder = made("p[1]/m.nii", "p1/m.nii", "p[1]*_m.nii")
    assert paired(folder, "{0}/m.nii", "p[1]", "p1") == ["p[1]/m.nii", "p1/m.nii"]
    assert paired(folder, "{0}_*.nii", "p[1]*") == ["p[1]*_m.nii"]


def test_a_scan_is_not_its_own_mask(made):
    folder = made("a.image", "a_brain.image")
    assert paired(folder, "{0}*.image", "a") == ["a_brain.image"]


def test_masks_may_be_outside_the_folder(made):
    folder = made("masks/a.nii", "data/a.image")
    [mask] = pairing.pair(folder / "data", "../masks/{0}.nii", [folder / "data/a.image"], [("a",)], needed=True)
    assert isinstance(mask, Path)
    assert mask.samefile(folder / "masks/a.nii")
    assert pairing.pair(folder, f"{folder}/masks/{{0}}.nii", [folder / "a"], [("a",)], needed=True) == [
        folder / "masks/a.nii"
    ]


@pytest.mark.parametrize("pattern", ["masks/{0}.nii", "masks/{0}*.nii", "*/{0}.nii"])
def test_a_mask_that_is_a_broken_link_is_named(made, pattern):
    folder = made("masks/b.nii")
    (folder / "masks/a.nii").symlink_to("gone")
    [first, second] = paired(folder, pattern, "a", "b")
    assert first == f"its mask {folder}/masks/a.nii: is a broken link (gone is missing); repair or remove the link"
    assert second == "masks/b.nii"


def test_a_broken_link_to_a_mask_folder_is_named(tmp_path):
    (tmp_path / "masks").symlink_to("gone")
    for pattern in ("masks/{0}.nii", "*/{0}*.nii", "masks/*.nii"):
        [mask] = paired(tmp_path, pattern, "a")
        assert mask is not None
        assert f"{tmp_path}/masks: is a broken link" in mask


def test_a_folder_of_masks_that_cannot_be_opened_is_named(made, monkeypatch):
    folder = made("masks/a.nii", "a/b.nii")

    def refuse(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("os.listdir", refuse)
    [first, second] = paired(folder, "masks/{0}*.nii", "a", "b")
    assert first == second == f"{folder}/masks: cannot be opened (Permission denied)"


def test_hidden_copies_are_not_masks(made):
    assert paired(made("a_mask.nii", "._a_mask.nii"), "*{0}_mask.nii", "a") == ["a_mask.nii"]


def test_patterns_with_a_star_too_many_are_refused():
    with pytest.raises(InputError, match=r"brains='\{2\}': can use \{0\} to \{1\}, one for each star of `images`"):
        pairing.check("{2}", 2, "brains")
    with pytest.raises(InputError, match=r"brains='\{0\}': `images` has no star"):
        pairing.check("{0}", 0, "brains")
    pairing.check(None, 0, "brains")
