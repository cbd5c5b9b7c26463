"""`jaxvae report`: the page, and the evaluations it rejects."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from jaxvae.cli import main
from jaxvae.machine import product_precision
from small_runs import SMALL


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("pixels", [{"score": "combi"}]),
        ("pixels", [{"auroc": 0.5}]),
        ("pixels", 3),
        ("samples", [{"score": "elbo", "auroc": "high", "average_precision": 0.5}]),
        ("images", {"test": 8}),
        ("volumes", [{"rows": [{"score": "combi"}]}]),
    ],
)
def test_a_damaged_table_is_one_line(run: Path, refused, table: str, value: object) -> None:
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {table: value}))
    assert "evaluation.json: its tables are damaged" in refused("report", run)


def test_the_report_is_a_page_with_everything(evaluated: Path) -> None:
    report = evaluated / "report"
    drawn = {f"{kind}_{what}" for kind in ("curves", "histograms") for what in ("pixels", "images")}
    drawn |= {"panels", "training"}
    pictures = {f"{name}.{ending}" for name in drawn for ending in ("png", "svg")}
    assert {path.name for path in report.iterdir()} == {
        *pictures,
        "index.html",
        "results.md",
        "results.json",
    }
    for name in drawn:
        with Image.open(report / f"{name}.png") as image:
            image.verify()
    page = (report / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 6
    rows = json.loads((report / "results.json").read_text())["rows"]
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    assert [(row["level"], row["score"]) for row in rows] == [
        (level, row["score"]) for level in ("pixels", "samples") for row in evaluation[level]
    ]
    assert "| Combi " in (report / "results.md").read_text()
    precision = product_precision()
    assert evaluation["precision"] == {"maps": precision, "image_scores": precision}
    assert f"<dt>Precision</dt><dd>{precision}</dd>" in page


def test_an_evaluation_of_earlier_versions_has_no_precision(run: Path) -> None:
    path = run / "evaluation.json"
    evaluation = json.loads(path.read_text())
    del evaluation["precision"]
    path.write_text(json.dumps(evaluation))
    assert main(["report", str(run)]) == 0
    assert "Precision</dt>" not in (run / "report" / "index.html").read_text()


def test_a_missing_evaluation_names_the_command_to_run(refused, folder: Path, run: Path) -> None:
    (run / "evaluation.json").unlink()
    assert refused("report", run).endswith(f"run: not evaluated yet; run `jaxvae evaluate {run}` first")
    shutil.rmtree(run / "checkpoints")
    assert "run: has no checkpoint yet" in refused("evaluate", run)


def test_an_evaluation_of_older_weights_is_refused(refused, run: Path, folder: Path) -> None:
    assert main(["train", str(run), "--data", str(folder), *SMALL, "--epochs", "3"]) == 0
    assert re.search("run: evaluated at step 4 and is at step 6 now; run `jaxvae evaluate", refused("report", run))
    # The threshold of the masks is computed again.
    assert main(["score", str(run), str(folder / "test"), "--maps", "combi"]) == 0
    assert json.loads((run / "thresholds.json").read_text())["step"] == 6


def test_changed_test_images_are_refused(refused, run: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    config = json.loads((run / "config.json").read_text())
    config["data"]["data"] = str(tmp_path / "data")
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "data" / "test" / "good" / "003.png").unlink()
    assert "data: test images or masks have changed since they were evaluated; run `jaxvae evaluate" in refused(
        "report", run
    )
    shutil.rmtree(tmp_path / "data")
    assert "data: no such folder" in refused("evaluate", run)


def test_the_report_of_a_sweep_names_its_files(refused, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "table.jsonl").touch()
    complaint = refused("report", tmp_path / "sweep")
    assert "sweep: is a sweep; its tables are table.csv and table.jsonl in that folder" in complaint
