"""Volumes found by patterns, and the text that stars match."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaxvae.data.missing_files import is_dangling, refuse_dangling
from jaxvae.data.volumes import patterns
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
def test_stars_match_names_and_folders(folder, pattern, expected):
    found, errors = patterns.matches(folder, pattern)
    assert {path.relative_to(folder).as_posix(): stars for path, stars in found} == expected
    assert errors == []
    assert all(len(stars) == patterns.stars(pattern) for _, stars in found)


def test_hidden_volumes_are_ignored(folder):
    found, errors = patterns.volumes_below(folder)
    assert [path.relative_to(folder).as_posix() for path in found] == [
        "a/x_t2.nii",
        "b/c/y_seg.nii.gz",
        "b/c/y_t2.nii.gz",
    ]
    assert errors == []


@pytest.mark.parametrize("pattern", ["**/*.nii", "*/*.nii", "*/t2.nii"])
def test_links_to_nothing_are_found(tmp_path, pattern):
    for name in ("a/t2.nii", "b/t2.nii", "c/t2.nii"):
        (tmp_path / name).parent.mkdir()
    (tmp_path / "a/t2.nii").touch()
    (tmp_path / "b/t2.nii").symlink_to("gone.nii")
    (tmp_path / "c/t2.nii").symlink_to("t2.nii")  # A link to itself leads nowhere either.
    (tmp_path / "d").symlink_to("gone")
    (tmp_path / "d.txt").symlink_to("gone.txt")
    (tmp_path / "README").symlink_to(".git/annex/objects/SHA256E-s1--1")
    found, errors = patterns.matches(tmp_path, pattern)
    assert [path.parent.name for path, _ in found] == ["a", "b", "c"]
    assert [is_dangling(path) for path, _ in found] == [False, True, True]
    [error] = errors
    assert patterns.cannot_be_opened(error) == (
        f"{tmp_path / 'd'}: is a broken link (gone is missing); repair or remove the link"
    )


def test_files_below_include_links_to_nothing(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to("gone.png")
    paths, errors = patterns.files_below(tmp_path, lambda path: False)
    assert [(path.name, is_dangling(path)) for path in paths] == [("a.png", False), ("b.png", True)]
    assert errors == []
    with pytest.raises(InputError, match=r"b.png: is a broken link \(gone.png is missing\)"):
        refuse_dangling(tmp_path / "b.png")


def test_only_folders_that_a_pattern_leads_through_are_opened(folder, monkeypatch):
    opened = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: opened.append(os.path.relpath(place, folder)) or scandir(place))
    patterns.matches(folder, "b/*/y_*.nii.gz")
    assert opened == [".", "b", "b/c"]


@pytest.mark.parametrize("pattern", ["/absolute/*.nii", "../*/*.nii", "a/../../*.nii", ""])
def test_patterns_that_lead_out_of_the_folder_are_refused(folder, pattern):
    with pytest.raises(InputError, match="must match files below"):
        patterns.matches(folder, pattern)
