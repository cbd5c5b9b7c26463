"""`jaxvae evaluate`: its metrics and thresholds, and the runs and test images it rejects."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

import jaxvae
from folders import healthy, with_squares, write_benchmark, write_png
from jaxvae.cli import main
from jaxvae.runs import run_images
from jaxvae.scores import BASELINES, MAPS
from small_runs import SIDE, SMALL, read_lines


def test_metrics_equal_scikit_learn_on_the_written_scores(evaluated: Path, folder: Path) -> None:
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    records = read_lines(evaluated / "scores" / "samples.jsonl")
    labels = np.array([record["anomalous"] for record in records])
    masks = np.zeros((8, SIDE, SIDE), bool)
    images = np.zeros((8, SIDE, SIDE))
    for i, record in enumerate(records):
        path = Path(record["name"])
        images[i] = np.asarray(Image.open(folder / path)) / 255
        if record["anomalous"]:
            masks[i] = np.asarray(Image.open(folder / "ground_truth" / "bad" / f"{path.stem}_mask.png")) > 0
    assert labels.sum() == 4
    assert masks.any(axis=(1, 2)).tolist() == labels.tolist()
    assert [row["score"] for row in evaluation["pixels"]] == [*BASELINES, *MAPS]
    for row in evaluation["pixels"]:
        if row["score"] == "equalised_brightness":
            continue
        found = (
            images if row["score"] == "brightness" else np.load(evaluated / "scores" / f"{row['score']}.npy")[..., 0]
        )
        assert found.shape == masks.shape
        scores, truth = found.ravel(), masks.ravel()
        precision, recall, _ = precision_recall_curve(truth, scores)
        assert row["auroc"][0] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
        assert row["average_precision"][0] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
        dice = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert row["best_dice"][0] == pytest.approx(dice.max(), abs=1e-9)
    # The mean rank of all pixels is the same for every image, so `equalised_brightness` is left out.
    assert [row["score"] for row in evaluation["samples"]] == ["brightness", "elbo", "kl", "nll"]
    for row in evaluation["samples"][1:]:
        scores = np.array([record[row["score"]] for record in records])
        assert row["auroc"][0] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
        assert row["average_precision"][0] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)


def test_thresholds_are_those_of_healthy_validation_images(evaluated: Path) -> None:
    thresholds = json.loads((evaluated / "evaluation.json").read_text())["thresholds"]
    assert set(thresholds) == set(MAPS)
    run = jaxvae.load(evaluated)
    validation = run_images.open_own(run).validation
    (scored,) = jaxvae.score_batches(run.model, run.params, validation.images, maps=list(thresholds))
    for name, values in thresholds.items():
        for rate, threshold in values.items():
            highest = np.sort(scored.maps[name].ravel())[::-1]
            allowed = int(float(rate) * highest.size)
            assert highest[allowed] < threshold <= highest[allowed - 1], (name, rate)


def test_the_same_commands_again_change_nothing(evaluated: Path, folder: Path, capsys) -> None:
    before = {path: path.read_bytes() for path in evaluated.rglob("*") if path.is_file()}
    assert main(["train", str(evaluated), "--data", str(folder), *SMALL]) == 0
    assert main(["evaluate", str(evaluated), "--resamples", "20"]) == 0
    out = capsys.readouterr().out
    assert "nothing is left to do; see how good it is with `jaxvae evaluate" in out
    assert "Combi" in out
    assert {path: path.read_bytes() for path in evaluated.rglob("*") if path.is_file()} == before


def test_labels_without_masks_give_image_metrics_only(folder: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(folder, tmp_path / "data", ignore=shutil.ignore_patterns("ground_truth"))
    run = tmp_path / "run"
    assert main(["train", str(run), "--data", str(tmp_path / "data"), *SMALL]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    assert main(["report", str(run)]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["pixels"] == []
    assert set(evaluation["thresholds"]) == set(MAPS)
    assert "Pixels" not in capsys.readouterr().out
    assert not (run / "report" / "panels.png").exists()


def test_a_run_is_evaluated_on_another_folder(run: Path, tmp_path: Path, refused) -> None:
    other = write_benchmark(tmp_path / "other")
    assert main(["evaluate", str(run), str(other), "--resamples", "0"]) == 0
    assert main(["report", str(run), str(other)]) == 0
    found = run / "on" / "other"
    evaluation = json.loads((found / "evaluation.json").read_text())
    assert (evaluation["tested_on"], evaluation["images"]["test"]) == (str(other), 8)
    (combi,) = (row for row in evaluation["pixels"] if row["score"] == "combi")
    masks = np.array([np.asarray(Image.open(path)) > 0 for path in sorted(other.glob("ground_truth/bad/*.png"))])
    names = [record["name"] for record in read_lines(found / "scores" / "samples.jsonl")]
    labels = np.zeros((8, SIDE, SIDE, 1), bool)
    labels[[i for i, name in enumerate(names) if "/bad/" in name]] = masks[..., None]
    scores = np.load(found / "scores" / "combi.npy")
    assert combi["auroc"] == pytest.approx(roc_auc_score(labels.ravel(), scores.ravel()))
    assert (found / "report" / "index.html").is_file()
    # Training images are refused under any name.
    linked = tmp_path / "linked"
    (linked / "train" / "good").mkdir(parents=True)
    (linked / "test").mkdir()
    trained_on = Path(json.loads((run / "config.json").read_text())["data"]["data"]) / "train" / "good"
    (linked / "test" / "good").symlink_to(trained_on)
    assert "which the run was trained on; name another folder" in refused("evaluate", run, linked)
    assert "has no labels; arrange it as test/KIND" in refused("evaluate", run, trained_on)


def test_a_missing_checkpoint_is_named(refused, run: Path, folder: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    for arguments in (["evaluate", run], ["score", run, folder / "test"], ["report", run]):
        assert refused(*arguments).endswith("run: has no checkpoint yet; train it with the command that began it")


def test_a_checkpoint_of_another_model_is_named(refused, run: Path, folder: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["model"]["latent_size"] = 7
    (run / "config.json").write_text(json.dumps(config))
    for arguments in (["evaluate", run], ["score", run, folder / "test"]):
        assert re.search("last/4: a checkpoint of another model, it has .* is wanted", refused(*arguments))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"data": {"data": "x"}}'])
def test_a_damaged_config_is_named(refused, run: Path, folder: Path, content: str) -> None:
    (run / "config.json").write_text(content)
    for arguments in (
        ["evaluate", run],
        ["score", run],
        ["report", run],
        ["train", run, "--data", folder, *SMALL],
    ):
        assert re.search(r"run/config.json: (not JSON|lacks |holds a list)", refused(*arguments))


@pytest.mark.parametrize("change", [{"channels": "missing"}, {"colour": True}])
def test_a_config_of_another_version_is_named(refused, run: Path, change: dict) -> None:
    config = json.loads((run / "config.json").read_text())
    config["data"] |= change
    if change.get("channels"):
        del config["data"]["channels"]
    (run / "config.json").write_text(json.dumps(config))
    for command in ("evaluate", "score", "report"):
        assert "config.json: its data are not as this version writes them" in refused(command, run)


def test_training_images_are_never_tested(refused, tmp_path: Path) -> None:
    """Each command splits the cases again, so one more case would move training cases into the test set."""
    data, run = tmp_path / "data", tmp_path / "run"

    def add_case(number: int) -> None:
        images = healthy(4, seed=number)
        sick, masks = with_squares(images[2:], seed=number)
        for i, image in enumerate([*images[:2], *sick]):
            write_png(data / f"case{number}" / f"{i}.png", image)
            write_png(data / f"case{number}" / f"{i}_mask.png", masks[i - 2] if i > 1 else np.zeros_like(image))

    for number in range(6):
        add_case(number)
    train = ["train", str(run), "--data", str(data), *SMALL]
    assert main(train) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    add_case(6)
    for command in (["evaluate", run], ["report", run], ["score", run]):
        assert "data: holds other images than when the run was trained" in refused(*command)
    assert "run: was made from other images than there are now in" in refused(*train)
    assert "data.split_seed 0, now 1" in refused(*train, "--split-seed", 1)
    shutil.rmtree(data / "case6")
    assert main(train) == main(["report", str(run)]) == 0


def test_a_flat_folder_has_nothing_to_evaluate(refused, tmp_path: Path, folder: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", str(run), "--data", str(folder / "train" / "good"), *SMALL]) == 0
    assert capsys.readouterr().out.endswith(f"look for anomalies with `jaxvae score {run} FOLDER`\n")
    assert "run: its data have no test images; name others that have labels" in refused("evaluate", run)
    assert "run: its data have no test images; name a folder" in refused("score", run)
    assert main(["score", str(run), str(folder / "test")]) == 0


@pytest.mark.slow
def test_fashion_mnist_from_files_to_report(data: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    flags = f"--data fashion_mnist:{data / 'fashion-mnist'} --hold-out 8 --epochs 1 --validation 0.01".split()
    assert main(["train", str(run), *flags]) == 0
    assert main(["evaluate", str(run), "--resamples", "0"]) == 0
    assert main(["report", str(run)]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["images"] == {"test": 10000, "anomalous": 1000, "groups": 10000}
    assert {row["score"] for row in evaluation["samples"]} == {*BASELINES, "elbo", "kl", "nll"}
    assert (run / "report" / "index.html").exists()
    assert "Images: 1000 of 10000 anomalous" in capsys.readouterr().out


def test_in_python_a_run_is_evaluated_without_files(evaluated: Path, folder: Path) -> None:
    run, before = jaxvae.load(evaluated), sorted(evaluated.rglob("*"))
    written = json.loads((evaluated / "evaluation.json").read_text())
    own = jaxvae.evaluate(run, resamples=20)
    assert json.loads(json.dumps(own)) == {name: written[name] for name in own}
    test = run_images.open_own(run).test
    in_memory = jaxvae.evaluate(run, test, resamples=0)
    assert [row["score"] for row in in_memory["pixels"]] == [row["score"] for row in own["pixels"]]
    assert [row["auroc"] for row in in_memory["pixels"]] == [row["auroc"][0] for row in own["pixels"]]
    with pytest.raises(jaxvae.InputError, match="no such folder"):
        jaxvae.evaluate(run, folder / "gone")
    assert sorted(evaluated.rglob("*")) == before
