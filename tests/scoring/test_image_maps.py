"""Maps of image files: each on its image's grid, bad files left out, killed calls continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvae import files
from jaxvae.cli import main
from jaxvae.data.images import folders
from jaxvae.data.images.image_files import write_png
from jaxvae.runs.run import load
from jaxvae.scoring import image_maps
from jaxvae.scoring.writing import MapSettings

MAPS = ("combi", "rec_error")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on images of 48 x 40, resized to 16 x 16."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(12):
        draw(folder / "healthy" / f"{i}.png", seed=i)
    run = folder / "run"
    flags = ["--size", "16", "--features", "4", "8", "--latent-size", "4", "--epochs", "2", "--learning-rate", "1e-2"]
    assert main(["train", str(run), "--data", str(folder / "healthy"), *flags]) == 0
    return run


def draw(path: Path, *, seed: int, shape: tuple[int, ...] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    return path


def score(run: Path, folder: Path, out: Path, *flags: str) -> list[str]:
    return ["score", str(run), str(folder), "--out", str(out), "--maps", *MAPS, *flags]


def written(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_maps_have_the_size_of_their_image(run, tmp_path):
    sizes = {"wide": (20, 60), "small": (8, 9), "same": (16, 16)}
    for name, shape in sizes.items():
        draw(tmp_path / "in" / f"{name}.png", seed=1, shape=shape)
    assert main(score(run, tmp_path / "in", tmp_path / "out", "--threshold", "1e-4")) == 0
    for name, shape in sizes.items():
        values = np.load(tmp_path / "out" / f"{name}_combi.npy")
        assert values.shape == shape
        assert np.asarray(Image.open(tmp_path / "out" / f"{name}_overlay.png")).shape == (*shape, 3)
        mask = np.asarray(Image.open(tmp_path / "out" / f"{name}_mask.png"))
        np.testing.assert_array_equal(mask > 0, values >= np.float32(1e-4))


def test_names_that_lead_out_of_the_folder_are_refused(run, tmp_path):
    entries, _ = folders.unlabelled(draw(tmp_path / "in" / "a.png", seed=0).parent)
    named = [entries[0]._replace(name="../outside.png"), *entries]
    wanted, out = MapSettings(("combi",)), tmp_path / "out"
    there = load(run)
    outcome = image_maps._write_images(there, named, out, wanted, {})
    assert (len(outcome.records), len(outcome.failed)) == (1, 1)
    assert "leads out of" in outcome.failed[0].reason
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_bad_files_do_not_change_the_scores_of_others(run, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    for i in range(4):
        draw(folder / f"{i}.png", seed=i)
    assert main(score(run, folder, tmp_path / "alone")) == 0
    (folder / "broken.png").write_bytes(b"\x89PNG")
    draw(folder / "colour.png", seed=0, shape=(48, 40, 3))
    np.save(folder / "huge.npy", np.full((48, 40), 1e25, np.float32))
    capsys.readouterr()
    for _ in range(2):
        assert main(score(run, folder, out)) == 2
        captured = capsys.readouterr()
        assert f"failed: {folder / 'broken.png'}: cannot be read" in captured.out
        assert f"failed: {folder / 'colour.png'}: the images are 16x16 with 3 channels" in captured.out
        assert f"failed: {folder / 'huge.npy'}: " in captured.out
        assert f"3 of 7 images could not be scored; {out / 'failed.jsonl'} says why" in captured.err
    failed = [json.loads(line)["path"] for line in (out / "failed.jsonl").read_text().splitlines()]
    assert sorted(Path(path).name for path in failed) == ["broken.png", "colour.png", "huge.npy"]
    for path in (tmp_path / "alone").glob("*.npy"):
        np.testing.assert_allclose(np.load(out / path.name), np.load(path), rtol=1e-4, atol=1e-9)
    here, there = (
        [json.loads(line) for line in (place / "samples.jsonl").read_text().splitlines()]
        for place in (out, tmp_path / "alone")
    )
    assert [record["name"] for record in here] == [record["name"] for record in there]
    assert [record["elbo"] for record in here] == pytest.approx([record["elbo"] for record in there], rel=1e-5)
    for name in ("broken.png", "colour.png", "huge.npy"):
        (folder / name).unlink()
    assert main(score(run, folder, out)) == 0
    assert (out / "failed.jsonl").read_text() == ""


def test_only_what_changed_is_scored_again(run, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    for i in range(4):
        draw(folder / f"{i}.png", seed=i)
    assert main(score(run, folder, out)) == 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.npy")}
    lines = (out / "samples.jsonl").read_text().splitlines()
    draw(folder / "2.png", seed=9)
    draw(folder / "10.png", seed=10)
    (out / "1_rec_error.npy").unlink()
    assert main(score(run, folder, out)) == 0
    again = {path.name for path in out.glob("*.npy") if before.get(path) != path.stat().st_mtime_ns}
    assert again == {f"{i}_{name}.npy" for i in (1, 2, 10) for name in MAPS}
    now = (out / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in now] == ["0.png", "1.png", "2.png", "3.png", "10.png"]
    assert [now[i] == lines[i] for i in range(4)] == [True, True, False, True]
    # An image that replaced another is scored again, however old its file is.
    shutil.copy(draw(tmp_path / "older.png", seed=11), folder / "0.png")
    os.utime(folder / "0.png", (1, 1))
    assert main(score(run, folder, out)) == 0
    assert (out / "samples.jsonl").read_text().splitlines()[0] != now[0]
    # A file that can no longer be read has no line.
    (folder / "3.png").write_bytes(b"broken")
    assert main(score(run, folder, out)) == 2
    now = (out / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in now] == ["0.png", "1.png", "2.png", "10.png"]
    (folder / "3.png").unlink()
    # With another first map, all overlays are drawn again.
    before = (out / "0_overlay.png").read_bytes()
    assert main(["score", str(run), str(folder), "--out", str(out), "--maps", *MAPS[::-1]]) == 0
    assert (out / "0_overlay.png").read_bytes() != before
    # With another threshold, all masks are written again.
    assert main(score(run, folder, out, "--threshold", "1e-3")) == 0
    for path in (out / f"{i}_mask.png" for i in (0, 1, 2, 10)):
        values = np.load(out / path.name.replace("_mask.png", "_combi.npy"))
        np.testing.assert_array_equal(np.asarray(Image.open(path)) > 0, values >= np.float32(1e-3))
    (folder / "0.png").write_bytes(b"broken")
    for path in folder.glob("[!0]*.png"):
        path.unlink()
    assert main(score(run, folder, out)) == 2
    assert (out / "samples.jsonl").read_text() == ""


def test_half_a_line_of_a_killed_process_is_removed(run, tmp_path):
    draw(tmp_path / "in" / "0.png", seed=0)
    assert main(score(run, tmp_path / "in", tmp_path / "out")) == 0
    whole = (tmp_path / "out" / "samples.jsonl").read_text()
    part, other = (tmp_path / "out" / f".0_overlay.png.{name}.part" for name in ("0" * 32, "another"))
    part.touch()
    other.touch()
    (tmp_path / "out" / "samples.jsonl").write_text(whole[:20])
    assert main(score(run, tmp_path / "in", tmp_path / "out")) == 0
    assert (tmp_path / "out" / "samples.jsonl").read_text() == whole
    assert (part.exists(), other.exists()) == (False, True)
    (tmp_path / "out" / "images.json").write_text("[]")
    assert main(score(run, tmp_path / "in", tmp_path / "out")) == 2


def test_a_folder_of_maps_of_an_earlier_version_continues(run, tmp_path):
    draw(tmp_path / "in" / "0.png", seed=0)
    assert main(score(run, tmp_path / "in", tmp_path / "out")) == 0
    note = json.loads((tmp_path / "out" / "images.json").read_text())
    note["images"]["learnt_from"] = note["images"].pop("image_names")
    (tmp_path / "out" / "images.json").write_text(json.dumps(note))
    moment = (tmp_path / "out" / "0_combi.npy").stat().st_mtime_ns
    draw(tmp_path / "in" / "1.png", seed=1)
    assert main(score(run, tmp_path / "in", tmp_path / "out")) == 0
    assert (tmp_path / "out" / "0_combi.npy").stat().st_mtime_ns == moment


def test_without_a_threshold_old_masks_are_removed(run, tmp_path, capsys):
    draw(tmp_path / "in" / "0.png", seed=0)
    assert main(score(run, tmp_path / "in", tmp_path / "out")) == 0
    assert (tmp_path / "out" / "0_mask.png").is_file()
    stats = json.loads((run / "thresholds.json").read_text())
    other = shutil.copytree(run, tmp_path / "run")
    (other / "thresholds.json").write_text(json.dumps({**stats, "thresholds": {}}))
    capsys.readouterr()
    assert main(score(other, tmp_path / "in", tmp_path / "out")) == 0
    assert "no threshold, and so no masks: the run has no validation images" in capsys.readouterr().out
    assert not (tmp_path / "out" / "0_mask.png").exists()


def test_scores_do_not_depend_on_the_chunks(run, tmp_path, monkeypatch):
    for i in range(7):
        draw(tmp_path / "in" / f"{i}.png", seed=i)
    assert main(score(run, tmp_path / "in", tmp_path / "one")) == 0
    monkeypatch.setattr(image_maps, "MAP_BYTES", 2 * 4 * 16 * 16 * 3)
    assert main(score(run, tmp_path / "in", tmp_path / "many", "--batch-size", "2")) == 0
    one, many = written(tmp_path / "one"), written(tmp_path / "many")
    assert one.keys() == many.keys()
    for name in one:
        if name.endswith(".npy"):
            wanted = np.load(tmp_path / "one" / name)
            np.testing.assert_allclose(np.load(tmp_path / "many" / name), wanted, rtol=1e-4, atol=1e-6 * wanted.max())


@pytest.mark.slow
def test_a_killed_folder_continues_to_the_same_bytes(run, tmp_path):
    for i in range(40):
        draw(tmp_path / "in" / f"{i:02d}.png", seed=i, shape=(300, 200))
    # One thread and batches of one image. A kill can leave an odd number of images, and the programs of other batch
    # sizes, like those of more threads, may round differently.
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    imports = "import sys; from jaxvae import cli; from jaxvae.scoring import image_maps"
    small = f"{imports}; image_maps.MAP_BYTES = {2 * 4 * 16 * 16 * 3}; "
    command = [sys.executable, "-c", f"{small} sys.exit(cli.main())"]
    arguments = score(run, tmp_path / "in", tmp_path / "whole", "--batch-size", "1")
    subprocess.run([*command, *arguments], check=True, capture_output=True, env=environment)
    out, killed = tmp_path / "out", 0
    arguments = score(run, tmp_path / "in", out, "--batch-size", "1")
    while killed < 4:
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, env=environment)
        wanted = len(list(out.glob("*_combi.npy"))) + 7
        while process.poll() is None and len(list(out.glob("*_combi.npy"))) < wanted:
            time.sleep(0.005)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1
    subprocess.run([*command, *arguments], check=True, capture_output=True, env=environment)
    found, expected = written(out), written(tmp_path / "whole")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_lost_image_or_a_long_name_fails_alone(run, tmp_path, capsys, monkeypatch):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b", "c" * 248):
        draw(folder / f"{name}.png", seed=len(name))
    chunks = image_maps._chunks

    def gone(entries, *others):
        (folder / "b.png").unlink()
        return chunks(entries, *others)

    monkeypatch.setattr(image_maps, "_chunks", gone)
    assert main(score(run, folder, out)) == 2
    assert "2 of 3 images could not be scored" in capsys.readouterr().err
    assert [json.loads(line)["name"] for line in (out / "samples.jsonl").read_text().splitlines()] == ["a.png"]


def test_folders_that_are_links_are_followed(run, tmp_path):
    draw(tmp_path / "elsewhere" / "a.png", seed=0)
    draw(tmp_path / "in" / "b.png", seed=1)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    assert main(score(run, tmp_path / "in", tmp_path / "out")) == 0
    assert (tmp_path / "out" / "link" / "a_combi.npy").is_file()


def test_results_of_others_are_not_overwritten(run, tmp_path, capsys):
    draw(tmp_path / "in" / "a.png", seed=0)
    assert main(score(run, tmp_path / "in", tmp_path / "out")) == 0
    assert main(["score", str(run), "--out", str(tmp_path / "out")]) == 2
    own = Path(json.loads((run / "config.json").read_text())["data"]["data"])
    assert main(score(run, tmp_path / "in", own / "maps")) == 2
    assert "the images of the run; name another folder" in capsys.readouterr().err
    assert not (own / "maps").exists()


def test_a_folder_locked_by_another_process_is_refused(run, tmp_path, capsys):
    draw(tmp_path / "in" / "a.png", seed=0)
    with files.locked(tmp_path / "out"):
        assert main(score(run, tmp_path / "in", tmp_path / "out")) == 2
    assert "out: another process is at work there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_scored_are_counted_and_listed(run, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "a_GT.png", "b.bmp", "ground_truth/x.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("")
    capsys.readouterr()
    assert main(score(run, folder, out)) == 0
    assert "  left out: 1 file (.txt), 2 masks; left_out.jsonl lists them" in capsys.readouterr().out
    reasons = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
    assert [(Path(one["path"]).name, one["reason"]) for one in reasons] == [
        ("notes.txt", "file (.txt)"),
        ("a_GT.png", "mask"),
        ("x.png", "mask"),
    ]
    assert [json.loads(line)["name"] for line in (out / "samples.jsonl").read_text().splitlines()] == ["a.png", "b.bmp"]
    # An image that is a broken link cannot be scored.
    (folder / "c.png").symlink_to("gone")
    assert main(score(run, folder, out)) == 2
    captured = capsys.readouterr()
    assert f"failed: {folder / 'c.png'}: is a broken link" in captured.out
    assert "1 of 3 images could not be scored" in captured.err


def test_the_exif_orientation_is_recorded_beside_the_scores(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "in" / "a.png", exif=exif)
    draw(tmp_path / "in" / "b.png", seed=0)
    for _ in range(2):  # The second time nothing is done again.
        assert main(score(run, tmp_path / "in", tmp_path / "out")) == 0
        records = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
        assert [record.get("exif_orientation") for record in records] == [8, None]
        assert records[0]["elbo"] == records[1]["elbo"]
        assert np.load(tmp_path / "out" / "a_combi.npy").shape == (48, 40)


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_cores(run, tmp_path):
    """Eight photographs of 20 megapixels take less than 2 GB of memory that is not of files."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(8):
        pixels = Image.fromarray(rng.integers(0, 256, (4, 5), np.uint8)).resize((5472, 3648))
        pixels.convert("RGB").save(tmp_path / "in" / f"{i}.jpg")
    for i in range(6):
        draw(tmp_path / "healthy" / f"{i}.png", seed=i, shape=(64, 64, 3))
    program = """
import os, sys, threading, time
os.cpu_count = lambda: 32
from jaxvae.cli import main

def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, held())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
flags = ["--size", "64", "--features", "4", "8", "--latent-size", "4", "--epochs", "1"]
assert main(["train", "run", "--data", "healthy", *flags]) == 0
assert main(["score", "run", "in", "--out", "out", "--threshold", "1", "--maps", "combi", "rec_error"]) == 0
assert main(["train", "other", "--data", "in", *flags]) == 0
print(peak)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert int(done.stdout.split()[-1]) < 2e9 / 1024
