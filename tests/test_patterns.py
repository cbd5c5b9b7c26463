"""Patterns of files: what is found below a folder, and what the stars stood for."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvae.data import patterns
from jaxvae.errors import InputError

FILES = (
    "a/x_t2.nii",
    "b/c/y_t2.nii.gz",
    "b/c/y_seg.nii.gz",
    "b/.hidden/z_t2.nii",
    "derivatives/w_t2.nii",
    "b/notes.txt",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*_t2.nii*", {"a/x_t2.nii": ("a/", "x", ""), "b/c/y_t2.nii.gz": ("b/c/", "y", ".gz")}),
        ("*/*_t2.nii", {"a/x_t2.nii": ("a", "x")}),
        ("b/**/*.nii.gz", {"b/c/y_seg.nii.gz": ("c/", "y_seg"), "b/c/y_t2.nii.gz": ("c/", "y_t2")}),
        ("[!a]/?/y_*.nii.gz", {"b/c/y_seg.nii.gz": ("seg",), "b/c/y_t2.nii.gz": ("t2",)}),
        ("*/none.nii", {}),
        ("**/[z-a]*.nii", {}),
        ("**/[*.nii", {}),
    ],
)
def test_stars_stand_for_what_is_there(folder, pattern, expected):
    found, errors = patterns.matches(folder, pattern)
    assert {path.relative_to(folder).as_posix(): stars for path, stars in found} == expected
    assert errors == []
    assert all(len(stars) == patterns.stars(pattern) for _, stars in found)


def test_volumes_below_are_those_that_can_be_seen(folder):
    found, errors = patterns.volumes_below(folder)
    assert [path.relative_to(folder).as_posix() for path in found] == [
        "a/x_t2.nii",
        "b/c/y_seg.nii.gz",
        "b/c/y_t2.nii.gz",
    ]
    assert errors == []


def test_one_file_or_none(folder):
    assert patterns.one_file(folder, "{0}{1}_seg.nii.gz", ("b/c/", "y"), needed=True) == folder / "b/c/y_seg.nii.gz"
    assert patterns.one_file(folder, "{0}_seg.nii", ("a",), needed=False) is None
    assert patterns.one_file(folder, None, (), needed=True) is None
    with pytest.raises(InputError, match=r"its mask a_seg\.nii is missing"):
        patterns.one_file(folder, "{0}_seg.nii", ("a",), needed=True)
    with pytest.raises(InputError, match=r"2 masks at b/c/y_\*, such as y_"):
        patterns.one_file(folder, "{0}y_*", ("b/c/",), needed=True)


def test_patterns_that_cannot_be_are_refused(folder):
    with pytest.raises(InputError, match=r"brains='\{2\}': takes \{0\} to \{1\}, one for each star of `images`"):
        patterns.check("{2}", 2, "brains")
    with pytest.raises(InputError, match=r"brains='\{0\}': `images` has no star"):
        patterns.check("{0}", 0, "brains")
    patterns.check(None, 0, "brains")
    with pytest.raises(InputError, match="no pattern of files below"):
        patterns.matches(folder, "/absolute/*.nii")
