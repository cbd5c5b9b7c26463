"""Files are written whole or not at all, and errors name the file."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import numpy as np
import pytest

from jaxvae import files
from jaxvae.errors import InputError, cannot_be_written, is_out_of_memory


def test_a_file_is_replaced_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    files.write(path, b"old")
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["taken", "file/below", "file/deep/below"])
def test_failed_writing_names_the_file_and_leaves_nothing(tmp_path: Path, name: str) -> None:
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


def test_errors_name_the_file_that_failed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"), files.replacing(tmp_path / "new"):
        (tmp_path / "gone").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_with_the_target(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="new: cannot be written \\(No space left"), files.replacing(tmp_path / "new"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_within_an_array_is_recognised() -> None:
    """NumPy gives no `errno` for it."""
    short = OSError("102400 requested and 992 written")
    line = "a.npy: cannot be written (No space left on device); free some space, or name another place"
    error = cannot_be_written("a.npy", short)
    assert str(error) == line
    error.__cause__ = short
    assert files.no_more_can_be_written(error)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 100 bytes."), True),
        (ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [os_error_code='28']"), False),
        (ValueError("RESOURCE_EXHAUSTED: Error writing: Disk quota exceeded [OS error 122: EDQUOT]"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_a_lack_of_memory_is_not_a_full_disk(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) == memory


def test_a_claimed_folder_is_continued_and_others_are_refused(tmp_path: Path) -> None:
    out, settings = tmp_path / "out", {"size": 64, "seed": 0}
    assert files.claim(out, "config.json", settings, what="a run") is None
    assert files.claim(out, "config.json", {"size": 32}, what="a run") == settings
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / ".hidden").touch()
    assert files.claim(tmp_path / "thesis", "config.json", settings, what="a run") is None
    (tmp_path / "thesis" / "config.json").rename(tmp_path / "thesis" / "thesis.tex")
    for taken in (tmp_path / "thesis", out / "config.json"):
        with pytest.raises(InputError, match=rf"{taken}: exists and is not a run \(no config.json in it\); name a new"):
            files.claim(taken, "config.json", settings, what="a run")
    assert files.claim(tmp_path / "thesis", "config.json", settings, what="a run", beside_others=True) is None
    (out / "config.json").write_text("{")
    with pytest.raises(
        InputError, match=r"config.json: not JSON .*; remove that folder and start again, or name a new one"
    ):
        files.claim(out, "config.json", settings, what="a run")


def test_other_settings_of_a_folder_are_named() -> None:
    before, now = {"size": 64, "seed": 0, "split": "a"}, {"size": 32, "seed": 1, "model": "conv"}
    files.refuse_other_settings(Path("out"), before, now, [])
    files.refuse_other_settings(Path("out"), before, before)
    with pytest.raises(InputError, match=r"^out: was made with seed 0, now 1; size 64, now 32; use those settings"):
        files.refuse_other_settings(Path("out"), before, now, ["seed", "size"])
    with pytest.raises(InputError, match=r'model null, now "conv"; repeat them$'):
        files.refuse_other_settings(Path("out"), before, now, ["model"], way_out="repeat them")


def test_a_folder_is_locked_by_one_process(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match="another process is at work there; wait for it, or end it")
    with files.locked(tmp_path), refused, files.locked(tmp_path):
        raise AssertionError
    with files.locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_half_a_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert files.read_lines(path) == []
    files.write_lines(path, [{"a": 1}, {"a": 2}])
    path.write_bytes(path.read_bytes() + b'{"a": ')
    assert files.read_lines(path) == [{"a": 1}, {"a": 2}]


def test_nan_is_refused_in_json(tmp_path: Path) -> None:
    for write in (
        lambda value: files.write_json(tmp_path / "a", value),
        lambda v: files.write_lines(tmp_path / "a", [v]),
    ):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write({"a": math.nan})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not JSON \("),
        (b"\xff\xfe\x00", r"not JSON \("),
        (b"[" * 100_000, r"not JSON \("),
        (b'{"a": NaN}', r"not JSON \(NaN is not finite\)"),
        (b'{"a": 1e999}', r"not JSON \(1e999 is not finite\)"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"not JSON \(.* has more than 64 bits\)"),
        (b'{"a": 18446744073709551616}', r"not JSON \(18446744073709551616 has more than 64 bits\)"),
        (b"[1]", "lacks a, b.c, so it is damaged or of another version"),
        (b'{"b": {"c": 1}}', "lacks a,"),
        (b'{"a": 1, "b": 2}', "lacks b.c,"),
        (b'{"a": "1", "b": {"c": 1}}', 'a is "1", so it is damaged'),
        (b'{"a": true, "b": {"c": 1}}', "a is true, so it is damaged"),
        (b'{"a": 1, "b": {"c": [1]}}', "b.c is a list, so it is damaged"),
        (b'{"a": 1, "b": {"c": 1}, "d": null}', "d is null, so it is damaged"),
    ],
)
def test_a_damaged_record_is_named_with_its_file(tmp_path: Path, content: bytes, message: str) -> None:
    facts = {"a": int, "b.c": int | float | None, "d?": str}
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"/a\.json: {message}.*; restore it or remove it$"):
        files.read_json(tmp_path / "a.json", facts)
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1, "b": {"c": null}}\n' + content + b"\n")
    with pytest.raises(InputError, match=rf"/a\.jsonl, line 2: {message}.*; write it again$"):
        files.read_lines(tmp_path / "a.jsonl", facts, way_out="write it again")


def test_an_unreadable_record_is_named(tmp_path: Path) -> None:
    for read in (files.read_json, files.read_lines):
        with pytest.raises(InputError, match=r": cannot be read \(Is a directory\); restore it or remove it"):
            read(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(InputError, match=r"a\.json: holds a list instead of an object"):
        files.read_json(tmp_path / "a.json")


def test_arrays_of_objects_and_damaged_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6.0))
    np.testing.assert_array_equal(files.open_array(path), np.arange(6.0))
    content = path.read_bytes()
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    pickled = path.read_bytes()
    for damaged in (b"", content[:50], content[:-1], pickled, content.replace(b"(6,)", b"(9999999999,)"), b"PK" * 40):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.npy: cannot be read \(.+\); prepare it again") as refused:
            files.open_array(path, way_out="prepare it again")
        assert "\n" not in str(refused.value)


def test_parts_of_killed_processes_are_removed(tmp_path: Path) -> None:
    for name in (".map.nii.gz.0123.part", ".other.nii.gz.0123.part", "map.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    files.clear_parts(tmp_path / "map.nii.gz")
    assert {path.name for path in tmp_path.iterdir()} == {".other.nii.gz.0123.part", "map.nii.gz"}


def test_appended_lines_are_read_back(tmp_path):
    for number in range(2):
        files.append_lines(tmp_path / "a.jsonl", [{"number": number}])
    assert files.read_lines(tmp_path / "a.jsonl") == [{"number": 0}, {"number": 1}]
    with pytest.raises(InputError, match=r"none/a\.jsonl: cannot be written \(No such file or directory\)"):
        files.append_lines(tmp_path / "none" / "a.jsonl", [{}])
