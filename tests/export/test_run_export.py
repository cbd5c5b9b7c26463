"""Exported runs: their files, their numbers without jaxvae, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvae
from folders import write_benchmark
from jaxvae.cli import main
from jaxvae.export import check, run_export
from jaxvae.runs.run import Run
from small_runs import SIDE, SMALL

# check.py as a user runs it, in a Python without jaxvae and without packages that only jaxvae needs.
ALONE = """
import runpy, sys
sys.modules |= dict.fromkeys(("jaxvae", "flax", "optax", "safetensors", "flatbuffers"))
sys.argv = ["check.py"]
runpy.run_path("check.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and its export as `OUT`."""
    place = tmp_path_factory.mktemp("export")
    data = write_benchmark(place / "data", train=12, test=4, size=SIDE)
    assert main(["train", str(place / "RUN"), "--data", str(data), *SMALL]) == 0
    jaxvae.export_run(jaxvae.load(place / "RUN"), place / "OUT", maps=("combi", "kl_grad"), batch_size=3)
    return place


@pytest.fixture
def run(folder: Path) -> Run:
    return jaxvae.load(folder / "RUN")


@pytest.fixture
def out(folder: Path, tmp_path: Path) -> Path:
    """A copy of the export that a test may change."""
    return Path(shutil.copytree(folder / "OUT", tmp_path / "OUT"))


def change_record(out: Path, **entries: object) -> None:
    record = json.loads((out / "export.json").read_text())
    hashes = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in record["sha256"]}
    (out / "export.json").write_text(json.dumps(record | {"sha256": hashes} | entries))


def test_check_needs_jax_and_numpy_only(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=folder / "OUT", capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    words = rf"6 outputs agree with the sample on cpu with jax {jax.__version__} \(worst \w+: \S+ of its largest value"
    assert re.search(words, done.stdout)
    assert done.stdout.count("\n") == 1


def test_any_number_of_images_gets_the_scores_of_the_run(folder: Path, run: Run) -> None:
    score = check.load(folder / "OUT")
    images = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 1), dtype=np.uint8)
    scores = run.score(images, ("combi", "kl_grad"), reconstructions=True)
    expected = {**scores.maps, **scores.image_scores, "reconstruction": scores.reconstructions}
    for some in (images, images / np.float32(255)):
        got = score(some)
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-6 * np.abs(values).max())
    with pytest.raises(check.ExportError, match=re.escape("images: [7, 16, 32, 1]; must be [N, H, W, C] with")):
        score(images[:, ::2])
    with pytest.raises(check.ExportError, match="images: there is none"):
        score(images[:0])


def test_the_weights_are_those_of_the_run(folder: Path, run: Run) -> None:
    from safetensors.numpy import load_file

    by_package, by_hand = (
        load_file(folder / "OUT" / check.WEIGHTS),
        check.read_safetensors(folder / "OUT" / check.WEIGHTS),
    )
    assert by_package.keys() == by_hand.keys()
    jax.tree.map(np.testing.assert_array_equal, check.nested(by_package), run.params)
    jax.tree.map(np.testing.assert_array_equal, check.nested(by_hand), run.params)


def test_weights_of_any_rank_and_order_are_kept(tmp_path: Path) -> None:
    params = {"level": {"scale": jax.numpy.float32(3.0), "kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3).T}}
    run_export._write_weights(tmp_path / check.WEIGHTS, params)
    read = check.nested(check.read_safetensors(tmp_path / check.WEIGHTS))
    assert read["level"]["scale"].shape == ()
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_the_record_has_all_that_a_program_needs(folder: Path) -> None:
    record = json.loads((folder / "OUT" / "export.json").read_text())
    assert record["images"] == {"shape": [3, SIDE, SIDE, 1], "dtype": "float32"}
    assert list(record["outputs"]) == ["combi", "kl_grad", "elbo", "kl", "nll", "reconstruction"]
    assert record["outputs"]["kl_grad"]["shape"] == [3, SIDE, SIDE, 1]
    assert record["platforms"] == ["cpu", "cuda", "tpu"]
    assert (record["jax"], record["jaxvae"]) == (jax.__version__, jaxvae.__version__)
    assert record["preprocessing"]["normalise"] == "none"
    assert str(folder) not in json.dumps(record)
    assert len((folder / "OUT" / "README.md").read_text().splitlines()) == 5
    sample = np.load(folder / "OUT" / "sample.npz")
    assert sample["images"].shape == (4, SIDE, SIDE, 1)


def test_the_record_has_the_scale_unless_the_model_has_learned_it(run: Run) -> None:
    config = {**run.config, "hparams": {**run.config["hparams"], "log_scale": -1.5}}
    assert run_export._log_scale(run._replace(config=config)) == -1.5
    model = run.model.clone(decoder_scale="shared")
    params = model.init(jax.random.key(0), np.zeros((1, *model.image_shape), np.float32))["params"]
    assert run_export._log_scale(run._replace(config=config, model=model, params=params)) is None


def test_one_changed_weight_is_found(out: Path) -> None:
    content = bytearray((out / check.WEIGHTS).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    values = np.frombuffer(content, "<f4", offset=start)
    values[np.abs(values).argmax()] += 1
    (out / check.WEIGHTS).write_bytes(content)
    with pytest.raises(check.ExportError, match=r"weights.safetensors: was changed since the export"):
        check.compare(out)
    change_record(out)
    with pytest.raises(check.ExportError, match=r"differs from the sample on cpu .* tolerance 1e-04\); export the run"):
        check.compare(out)


def test_a_program_of_another_jax_says_how_to_write_it_again(out: Path) -> None:
    way_out = f"install jax {jax.__version__}, or write it again with this jax: jaxvae export RUN OUT"
    change_record(out, calling_convention_version=99)
    with pytest.raises(check.ExportError, match=rf"calling convention 99, and jax \S+ reads .* to \d+; {way_out}"):
        check.compare(out)
    # Some versions refuse a program only when they compile it.
    change_record(out, calling_convention_version=10, images={"shape": [3, SIDE, SIDE, 2]})
    with pytest.raises(check.ExportError, match=rf"score.stablehlo: .* refuses this file \(.+\); {way_out}"):
        check.compare(out)
    change_record(out, images={"shape": [3, SIDE, SIDE, 1]})
    (out / check.PROGRAM).write_bytes((out / check.PROGRAM).read_bytes()[:400])
    change_record(out)
    with pytest.raises(check.ExportError, match=rf"score.stablehlo: .* refuses this file \(.+\); {way_out}"):
        check.compare(out)


def test_check_fails_with_one_line(out: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py", str(out)])
    (out / check.SAMPLE).unlink()
    assert check.main() == 1
    assert re.fullmatch(r".*OUT: is not a whole export \(.*\); restore it, or export .*\n", capsys.readouterr().err)
    change = json.loads((out / "export.json").read_text())
    del change["tolerance"]
    (out / "export.json").write_text(json.dumps(change))
    assert check.main() == 1
    assert "export.json: lacks tolerance; restore it" in capsys.readouterr().err


def test_a_model_of_16_bits_may_differ_by_more(run: Run, out: Path) -> None:
    narrow = run.model.clone(dtype=jax.numpy.bfloat16)
    jaxvae.export_run(run._replace(model=narrow), out, maps=("rec_error",), batch_size=2, sample="noise")
    assert json.loads((out / "export.json").read_text())["tolerance"]["cpu"] == 3e-2


def test_an_earlier_export_is_replaced_and_other_folders_are_not(run: Run, out: Path) -> None:
    (out.parent / f".{out.name}.123.part").mkdir()
    line = jaxvae.export_run(run, out, maps=("rec_error",), batch_size=4, sample="noise")
    assert line.startswith(f"{out}: 5 outputs agree")
    assert [it.name for it in out.parent.iterdir()] == ["OUT"]
    assert "own images" not in (out / "README.md").read_text()
    np.testing.assert_array_equal(np.load(out / check.SAMPLE)["images"], run_export._noise(run))
    (out / "notes.txt").touch()
    for place in (out, run.run_dir, run.run_dir / "config.json"):
        with pytest.raises(jaxvae.InputError, match=r"exists and is not an export; name a new folder"):
            jaxvae.export_run(run, place)


def test_an_export_that_fails_leaves_nothing(run: Run, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_export, "_export_program", fail)
    with pytest.raises(KeyboardInterrupt):
        jaxvae.export_run(run, tmp_path / "new" / "OUT", sample="noise")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_cannot_be_exported_is_refused(run: Run, tmp_path: Path, monkeypatch) -> None:
    for name, problem in {
        "knn_latent": "has its own program",
        "brightness": "has its own program",
        "x": "is unknown",
    }.items():
        with pytest.raises(jaxvae.InputError, match=rf"maps='{name}': {problem}.*; choose from rec_error"):
            jaxvae.export_run(run, tmp_path / "OUT", maps=(name,))
    released = run._replace(config={**run.config, "arithmetic": "released"})
    with pytest.raises(jaxvae.InputError, match="RUN: its arithmetic is released"):
        jaxvae.export_run(released, tmp_path / "OUT")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(jaxvae.InputError, match="the package safetensors is not installed; run `pip install"):
        jaxvae.export_run(run, tmp_path / "OUT")
    assert not (tmp_path / "OUT").exists()


def test_without_the_run_s_images_the_sample_is_noise(run: Run) -> None:
    data = {**run.config["data"], "data": "/nowhere"}
    assert run_export._sample_images(run._replace(config={**run.config, "data": data})) is None
    own = run_export._sample_images(run)
    assert own is not None
    assert own.shape == (4, SIDE, SIDE, 1)


def test_a_run_without_a_kl_has_the_nll_only(run: Run) -> None:
    without = run._replace(config={**run.config, "objective": "autoencoder"})
    assert run_export._image_scores(without) == ("nll",)
    assert run_export._checked_maps(without, None) == ("rec_error", "rec_grad")
