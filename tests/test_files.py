"""Laws of files: whole or not at all, and whoever is to blame is named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from jaxvae import files
from jaxvae.errors import InputError


def test_a_file_is_replaced_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    files.write(path, b"old")
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["taken", "file/below", "file/deep/below"])
def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"{name}: cannot be written"):
        files.write(tmp_path / name, b"content")
    assert {entry.name for entry in tmp_path.rglob("*")} == {"taken", "file"}


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "/tmp/x.json"])
def test_names_that_lead_out_of_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leads out of"):
        files.below(tmp_path, name)
    assert files.below(tmp_path, "a..b/x.json") == tmp_path / "a..b" / "x.json"


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_to_be_read_meanwhile_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"), files.replacing(tmp_path / "new"):
        (tmp_path / "gone").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_blamed_on_the_target(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="new: cannot be written \\(No space left"), files.replacing(tmp_path / "new"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match="another process is at work there; wait for it, or end it")
    with files.alone(tmp_path), refused, files.alone(tmp_path):
        raise AssertionError
    with files.alone(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_half_a_line_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert files.read_lines(path) == []
    files.write_lines(path, [{"a": 1}, {"a": 2}])
    path.write_bytes(path.read_bytes() + b'{"a": ')
    assert files.read_lines(path) == [{"a": 1}, {"a": 2}]


def test_nan_is_no_json(tmp_path: Path) -> None:
    for write in (
        lambda value: files.write_json(tmp_path / "a", value),
        lambda v: files.write_lines(tmp_path / "a", [v]),
    ):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write({"a": math.nan})
    assert not (tmp_path / "a").exists()


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    for name in (".map.nii.gz.0123.part", ".other.nii.gz.0123.part", "map.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    files.clear_parts(tmp_path / "map.nii.gz")
    assert {path.name for path in tmp_path.iterdir()} == {".other.nii.gz.0123.part", "map.nii.gz"}


def test_lines_are_appended_or_it_is_said_why_not(tmp_path):
    for number in range(2):
        files.append_lines(tmp_path / "a.jsonl", [{"number": number}])
    assert files.read_lines(tmp_path / "a.jsonl") == [{"number": 0}, {"number": 1}]
    with pytest.raises(InputError, match=r"none/a\.jsonl: cannot be written \(No such file or directory\)"):
        files.append_lines(tmp_path / "none" / "a.jsonl", [{}])
