"""`jaxvae score`: maps, overlays and masks per image, and the images it rejects."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tifffile
from PIL import Image

from folders import write_png
from jaxvae.cli import main
from jaxvae.cli.flags import MapName
from jaxvae.data.resampling import on_grid
from jaxvae.scores import known_maps
from small_runs import SIDE, leftovers, read_lines


def test_maps_are_those_of_the_library() -> None:
    assert set(get_args(MapName)) == set(known_maps())


def test_a_folder_is_scored_image_by_image(run: Path, folder: Path) -> None:
    assert main(["score", str(run), str(folder / "test")]) == 0
    out = run / "scores" / "test"
    records = read_lines(out / "samples.jsonl")
    assert [record["name"] for record in records] == [f"{kind}/00{i}.png" for kind in ("bad", "good") for i in range(4)]
    threshold = json.loads((run / "evaluation.json").read_text())["thresholds"]["elbo_grad"]["0.01"]
    for record in records:
        stem = out / Path(record["name"]).with_suffix("")
        assert set(record) == {"name", "elbo", "kl", "nll", "source"}
        for name in ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi"):
            values = np.load(f"{stem}_{name}.npy")
            assert (values.shape, values.dtype) == ((SIDE, SIDE), np.float32)
        overlay = np.asarray(Image.open(f"{stem}_overlay.png"))
        assert overlay.shape == (SIDE, SIDE, 3)
        mask = np.asarray(Image.open(f"{stem}_mask.png"))
        np.testing.assert_array_equal(mask, np.where(np.load(f"{stem}_elbo_grad.npy") >= threshold, 255, 0))
    assert len(list(out.rglob("*.*"))) == 8 * 7 + 2
    assert leftovers(run) == []


def test_maps_of_another_folder_are_not_overwritten(run: Path, folder: Path, tmp_path: Path, refused) -> None:
    other = tmp_path / "other" / "test"
    shutil.copytree(folder / "test" / "good", other)
    assert main(["score", str(run), str(folder / "test"), "--maps", "combi"]) == 0
    before = (run / "scores" / "test" / "samples.jsonl").read_bytes()
    complaint = refused("score", run, other, "--maps", "combi")
    assert f"holds the maps of {folder / 'test'}; name another --out" in complaint
    config = json.loads((run / "config.json").read_text())
    again = shutil.copytree(run, tmp_path / "again")
    (again / "config.json").write_text(json.dumps({**config, "seed": config["seed"] + 1}))
    complaint = refused("score", again, folder / "test", "--out", run / "scores" / "test")
    assert f"was made with seed {config['seed']}, now {config['seed'] + 1}; name another --out" in complaint
    assert (run / "scores" / "test" / "samples.jsonl").read_bytes() == before
    assert main(["score", str(run), str(other), "--out", str(tmp_path / "out"), "--maps", "combi"]) == 0


def test_a_score_depends_on_its_image_only(run: Path, folder: Path, tmp_path: Path) -> None:
    image = folder / "test" / "bad" / "002.png"
    many, few, one = tmp_path / "many", tmp_path / "few", tmp_path / "one"
    assert main(["score", str(run), str(folder / "test"), "--out", str(many)]) == 0
    assert main(["score", str(run), str(folder / "test"), "--out", str(few), "--batch-size", "3"]) == 0
    assert main(["score", str(run), str(image), "--out", str(one)]) == 0
    expected = next(record for record in read_lines(many / "samples.jsonl") if record["name"] == "bad/002.png")
    for out, stem in ((few, few / "bad" / "002"), (one, one / "002")):
        record = next(record for record in read_lines(out / "samples.jsonl") if record["name"].endswith("002.png"))
        assert [record[k] for k in ("elbo", "kl", "nll")] == pytest.approx(
            [expected[k] for k in ("elbo", "kl", "nll")], rel=1e-5
        )
        for name in ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi"):
            wanted = np.load(many / "bad" / f"002_{name}.npy")
            np.testing.assert_allclose(np.load(f"{stem}_{name}.npy"), wanted, rtol=1e-5, atol=1e-6 * wanted.max())


def test_score_writes_chosen_maps_as_tiff_and_a_mask(run: Path, folder: Path, capsys) -> None:
    image = folder / "test" / "bad" / "000.png"
    flags = ["--maps", "rec_error", "combi_sum", "--format", "tiff", "--threshold", "0.5"]
    assert main(["score", str(run), str(image), *flags]) == 0
    out = run / "scores" / "000"
    assert capsys.readouterr().out.startswith(f"{out}: 1 image scored (rec_error, combi_sum)")
    names = sorted(path.name for path in out.iterdir())
    maps = ["000_combi_sum.tiff", "000_mask.png", "000_overlay.png", "000_rec_error.tiff"]
    assert names == [*maps, "images.json", "samples.jsonl"]
    error = tifffile.imread(out / "000_rec_error.tiff")
    assert error.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(Image.open(out / "000_mask.png")) == 255, error >= 0.5)
    assert json.loads((out / "samples.jsonl").read_text())["name"] == "000.png"


def test_masks_need_no_evaluation(run: Path, folder: Path) -> None:
    score = ["score", str(run), str(folder / "test" / "bad"), "--maps", "combi"]
    assert main([*score, "--out", str(run / "after")]) == 0
    (run / "evaluation.json").unlink()
    (run / "thresholds.json").unlink()
    for _ in range(2):
        assert main([*score, "--out", str(run / "before")]) == 0
        (run / "thresholds.json").write_text("{damaged")
    assert main([*score, "--out", str(run / "before")]) == 0
    masks = sorted((run / "after").glob("*_mask.png"))
    assert [path.read_bytes() for path in masks] == [(run / "before" / path.name).read_bytes() for path in masks]
    assert len(masks) == 4


def test_without_thresholds_and_images_there_are_no_masks(run: Path, folder: Path, tmp_path: Path, capsys) -> None:
    (run / "thresholds.json").unlink()
    config = json.loads((run / "config.json").read_text())
    config["data"]["data"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    assert main(["score", str(run), str(folder / "test" / "bad")]) == 0
    assert f"no threshold, and so no masks: {tmp_path / 'gone'}: no such folder" in capsys.readouterr().out
    assert len(list((run / "scores" / "bad").glob("*_overlay.png"))) == 4
    assert not list((run / "scores" / "bad").glob("*_mask.png"))


def test_without_a_folder_the_test_images_are_scored(run: Path, evaluated: Path) -> None:
    shutil.rmtree(run / "scores")
    assert main(["score", str(run), "--maps", "combi"]) == 0
    names = sorted(path.name for path in (run / "scores").iterdir())
    assert names == ["combi.npy", "reconstructions.npy", "samples.jsonl"]
    for name in ("combi.npy", "reconstructions.npy"):
        wanted = np.load(evaluated / "scores" / name)
        np.testing.assert_allclose(np.load(run / "scores" / name), wanted, rtol=1e-4, atol=1e-6 * wanted.max())


def test_images_are_prepared_as_the_runs_own(folder: Path, tmp_path: Path) -> None:
    """A run on 16 x 16 takes images of 32 x 32, and a prepared image scores like its original."""
    run, prepared = tmp_path / "run", tmp_path / "prepared.npy"
    flags = ["--size", "16", "--normalise", "zscore", "--model", "dense", "--hidden-size", "8", "--epochs", "1"]
    assert main(["train", str(run), "--data", str(folder), *flags]) == 0
    image = folder / "test" / "bad" / "001.png"
    assert main(["score", str(run), str(image)]) == 0
    pixels = np.asarray(Image.open(image), np.float64).reshape(16, 2, 16, 2).mean(axis=(1, 3)) / 255
    pixels = (pixels - pixels.mean()) / pixels.std()
    np.save(prepared, pixels.astype(np.float32))
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"size": None, "normalise": "none"}
    (run / "config.json").write_text(json.dumps(config))
    assert main(["score", str(run), str(prepared)]) == 0
    expected = np.load(run / "scores" / "001" / "001_combi.npy")
    found = np.load(run / "scores" / "prepared" / "prepared_combi.npy")
    np.testing.assert_allclose(on_grid(found[..., None], (32, 32))[..., 0], expected, rtol=1e-3, atol=1e-4)


def test_unfit_images_are_refused_and_nothing_is_written(refused, run: Path, tmp_path: Path) -> None:
    before = sorted(run.rglob("*"))
    write_png(tmp_path / "small" / "a.png", np.zeros((16, 16), np.uint8))
    write_png(tmp_path / "colour" / "a.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    write_png(tmp_path / "twins" / "a.png", np.zeros((SIDE, SIDE), np.uint8))
    np.save(tmp_path / "twins" / "a.npy", np.zeros((SIDE, SIDE), np.float32))
    (tmp_path / "none").mkdir()
    write_png(tmp_path / "damaged" / "a.png", np.zeros((SIDE, SIDE), np.uint8)).write_bytes(b"\x89PNG\r\n")
    for name, message in {
        "small": "small/a.png: the images are 16x16 with 1 channel once prepared, and the run was trained on 32x32",
        "colour": "colour/a.png: the images are 32x32 with 3 channels once prepared",
        "twins": "a.png: its maps would have the same names as those of a.npy; rename one",
        "none": "none: no PNG, JPEG, BMP, WebP, TIFF or npy image in it",
        "damaged": "damaged/a.png: cannot be read",
        "nowhere": "nowhere: no such folder",
    }.items():
        assert re.search(message, refused("score", run, tmp_path / name))
    assert sorted(run.rglob("*")) == before


def test_results_are_not_written_among_the_images(refused, run: Path, folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder / "test", tmp_path / "data")
    assert "out: is inside" in refused("score", run, data, "--out", tmp_path / "data" / "out")
    assert "is inside" in refused("score", run, run)
    assert f"--out {run}: is the run itself" in refused("score", run, data, "--out", run)
    (tmp_path / "file").touch()
    assert re.search("file.*: cannot be written", refused("score", run, folder / "test", "--out", tmp_path / "file"))
