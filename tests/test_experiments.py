"""The arithmetic, tables and figures of the experiments, on small or invented rows."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import beta, bootstrap, multivariate_normal, spearmanr

import jaxvae
from experiments import brain_mri, brain_scans, fashion_mnist, gaussian_mixture, phantom, record, robustness, winners
from fashion_files import look_alike
from jaxvae import files
from jaxvae.data import phantom as slices
from jaxvae.data.volumes import volume_files
from jaxvae.data.volumes.scans import Rejected, Scan
from jaxvae.errors import InputError
from scan_folders import head, write_volume

EXPERIMENTS = [fashion_mnist, robustness]  # with a quick trial

QUICKSTART = Path(__file__).parents[1] / "experiments" / "quickstart.py"


@pytest.mark.slow
def test_the_quickstart_runs_and_is_short(tmp_path, monkeypatch, capsys):
    source = QUICKSTART.read_text()
    assert len(source.splitlines()) <= 100
    for usual, small in {"train=1000, test=200": "train=64, test=20", "STEPS = 400": "STEPS = 5"}.items():
        assert source.count(usual) == 1
        source = source.replace(usual, small)
    monkeypatch.chdir(tmp_path)
    exec(compile(source, str(QUICKSTART), "exec"), {})
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert all(f"{name}: pixel AUROC 0." in printed for name in ("elbo_grad", "combi", "rec_error"))
    assert "custom network and likelihood: pixel AUROC of ELBO-Grad 0." in printed


def test_phantom_lesions_are_tabulated_and_drawn(tmp_path):
    test = slices.load(train=2, test=40, size=32).test
    assert test.masks is not None
    perfect = test.masks.astype(np.float32)
    dice = phantom.dice_of_images(perfect, test.masks, 0.5)
    assert (np.isnan(dice) == ~test.labels).all()
    np.testing.assert_array_equal(dice[test.labels], 1)
    np.testing.assert_array_equal(phantom.dice_of_images(perfect, ~test.masks, 0.5), 0)
    rows = phantom.by_kind(test, perfect, dice)
    assert [row["lesion"] for row in rows] == ["bright", "dark", "mass", "texture"]
    assert all((row["AUROC"], row["median"]) == (1, 1) for row in rows)
    phantom.draw(tmp_path / "phantom.png", test, test.images, perfect, dice)
    assert (tmp_path / "phantom.png").stat().st_size > 10_000


def test_the_mixtures_density_and_score_equal_scipys():
    points = np.random.default_rng(0).random((50, 2))
    logarithm, score = gaussian_mixture.log_density(points)
    parts = [multivariate_normal(mean, gaussian_mixture.STD**2).pdf(points) for mean in gaussian_mixture.MEANS]
    np.testing.assert_allclose(logarithm, np.log(gaussian_mixture.WEIGHTS @ np.array(parts)), rtol=1e-9)
    step = 1e-6
    for axis in (0, 1):
        shifted = [gaussian_mixture.log_density(points + sign * step * np.eye(2)[axis])[0] for sign in (1, -1)]
        np.testing.assert_allclose(score[:, axis], (shifted[0] - shifted[1]) / (2 * step), rtol=1e-5, atol=1e-5)


def test_errors_of_known_fields():
    truth = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert gaussian_mixture.errors(0.5 * truth, truth) == {
        "angle_median": pytest.approx(0, abs=1e-5),
        "within_45_degrees": 1.0,
        "length_ratio": pytest.approx(0.5),
    }
    turned = truth @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert gaussian_mixture.errors(turned, truth)["angle_median"] == pytest.approx(90)


def test_the_elbos_gradient_points_up_the_density():
    config = gaussian_mixture.Config(samples=5000, steps=2000)
    rows = gaussian_mixture.compare(config, gaussian_mixture.train(config), gaussian_mixture.train_denoiser(config))
    of = {(row["field"], row["points"]): row for row in rows}
    assert of["ELBO", "samples"]["angle_median"] < 30
    assert of["ELBO", "square"]["angle_median"] < 20
    assert of["ELBO", "samples"]["angle_median"] < of["-KL", "samples"]["angle_median"]
    assert of["DAE", "samples"]["angle_median"] < 10


def test_the_best_denoiser_estimates_the_score_of_noisy_samples(monkeypatch):
    """Alain & Bengio 2014: of one Gaussian of variance s^2, (r(x) - x) / noise^2 is (mean - x) / (s^2 + noise^2)."""
    config = gaussian_mixture.Config(noise=0.05)
    points = np.random.default_rng(0).random((20, 2))
    shrink = 0.08**2 / (0.08**2 + 0.05**2)
    mean = np.array([0.3, 0.6])
    best = jaxvae.Decoded(jnp.asarray(mean + shrink * (points - mean), jnp.float32).reshape(-1, 1, 2, 1))
    monkeypatch.setattr(gaussian_mixture, "reconstruct", lambda *_: best)
    expected = (mean - points) / (0.08**2 + 0.05**2)
    np.testing.assert_allclose(gaussian_mixture.estimated_score(config, None, points), expected, atol=1e-3)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_figure_has_150_runs_and_skips_finished_ones(backend, monkeypatch):
    monkeypatch.setattr(fashion_mnist.jax, "default_backend", lambda: backend)
    config = fashion_mnist.Config()
    programs = fashion_mnist.missing(config, [])
    runs = [run for _, members in programs for run in members]
    assert len(runs) == 2 * 3 * (5 + 4 + 5 + 11)
    assert len({json.dumps(run, sort_keys=True) for run in runs}) == len(runs)
    for program, members in programs:
        assert {(run["scaling"], run["arithmetic"]) for run in members} == {(program["scaling"], program["arithmetic"])}
        assert max(run["latent_size"] for run in members) == program["latent_size"]
    sizes = [len(members) for _, members in programs]
    # On a CPU, the three seeds of a setting.
    assert sizes == ([3] * 50 if backend == "cpu" else [63, 63, *[3] * 8])
    assert {program["scaling"] for program, _ in programs[2:4]} == ({1} if backend == "cpu" else {16})
    done = [{"run": run} for run in runs[:40]]
    left = [run for _, members in fashion_mnist.missing(config, done) for run in members]
    assert sorted(map(str, left)) == sorted(map(str, runs[40:]))


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2)])
def test_a_cpu_pads_no_latents(seeds):
    programs = fashion_mnist.missing(fashion_mnist.Config(seeds=seeds), [])
    assert sum(len(members) for _, members in programs) == 2 * 25 * len(seeds)
    for program, members in programs:
        assert len(members) <= 3
        assert {run["latent_size"] for run in members} == {program["latent_size"]}


def test_the_finished_runs_are_still_known():
    """A program that is merged with others continues from old rows."""
    done = files.read_lines(record.RESULTS / "fashion_mnist_runs.jsonl")
    assert len(done) == 150
    assert fashion_mnist.missing(fashion_mnist.Config(), done) == []


def test_the_figure_trains_what_it_compiled_ahead(tmp_path, monkeypatch, compilations):
    """Two latent sizes, two classes and two log_scales in one program; the same command trains nothing again."""
    look_alike(tmp_path / "data", train=150, test=20)
    monkeypatch.setattr(fashion_mnist.fashion_mnist, "read", partial(fashion_mnist.fashion_mnist.read, verify=False))
    monkeypatch.setattr(fashion_mnist.jax, "default_backend", lambda: "gpu")
    panels = {"latent_size": {2: 3 * (0.5,), 3: 3 * (0.5,)}, "log_scale": {0.5: 3 * (0.5,)}, "scaling": {1: 3 * (0.5,)}}
    monkeypatch.setattr(fashion_mnist, "PAPER", {**panels, "held_out_class": {7: 3 * (0.5,)}})
    config = fashion_mnist.Config(data=tmp_path / "data", out=tmp_path / "out", seeds=(0,), epochs=1)
    fashion_mnist.main(config)
    assert [compilations.count(f"jit({name})") for name in ("_fit_many", "_score_many")] == [2, 2]
    rows = files.read_lines(tmp_path / "out" / "fashion_mnist_runs.jsonl")
    assert len(rows) == 2 * 5
    assert all(0 < row["auroc"]["rec"] < 1 for row in rows)
    compilations.clear()
    fashion_mnist.main(config)
    assert compilations == []
    assert (tmp_path / "out" / "fashion_mnist.png").exists()


def pretend_to_train(monkeypatch, experiment) -> None:
    """Let FashionMNIST look like one image, and give each run random results."""
    random = np.random.default_rng(0)
    part = np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8)

    def results() -> dict[str, float]:
        return dict(zip(experiment.SCORES, random.random(3).tolist(), strict=True))

    def train(*arguments) -> list[dict]:
        runs = arguments[1] if experiment is fashion_mnist else robustness.runs_of(*arguments[:2])
        return [{"run": run, "auroc": results(), "validation": results(), "loss": 0.0, "seconds": 1.0} for run in runs]

    monkeypatch.setattr(experiment.fashion_mnist, "read", lambda _: {"train": part, "test": part})
    monkeypatch.setattr(experiment, "train", train)
    monkeypatch.setattr(fashion_mnist, "compile_program", lambda *_: None)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("folder", ["results", "out/../results", "linked"])
def test_a_quick_trial_does_not_replace_the_results(experiment, folder, tmp_path, monkeypatch):
    pretend_to_train(monkeypatch, experiment)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "linked").symlink_to("results")
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    with pytest.raises(InputError, match="--quick: would replace the results"):
        experiment.main(experiment.Config(quick=True, out=Path(folder)))
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_trial_writes_to_a_new_folder_from_anywhere(experiment, tmp_path, monkeypatch):
    pretend_to_train(monkeypatch, experiment)
    monkeypatch.chdir(tmp_path)
    experiment.main(experiment.Config(quick=True, out=Path("new/folder")))
    name = experiment.__name__.rpartition(".")[2]
    endings = (".context.json", ".json", ".md", ".png", "_runs.jsonl")
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {name + ending for ending in endings}
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        experiment.main(experiment.Config(quick=True, out=Path("file")))


def test_the_default_folder_is_that_of_the_results():
    assert {experiment.Config().out for experiment in EXPERIMENTS} == {record.RESULTS}


def test_programs_of_other_latent_sizes_are_compiled_too(tmp_path, monkeypatch):
    """Three programs of two runs: two with padded latents, one without."""
    compiled = []
    pretend_to_train(monkeypatch, fashion_mnist)
    monkeypatch.setattr(fashion_mnist, "compile_program", lambda _, runs, *__: compiled.append(runs))
    monkeypatch.setattr(fashion_mnist.jax, "default_backend", lambda: "gpu")
    paper = {2: 3 * (0.5,), 20: 3 * (0.5,), 3: 3 * (0.5,)}
    monkeypatch.setattr(fashion_mnist, "PAPER", {**fashion_mnist.PAPER, "latent_size": paper})
    panels, arithmetics = ("latent_size", "log_scale"), ("released",)
    settings = {"panels": panels, "arithmetics": arithmetics, "seeds": (0,), "runs_per_program": 2}
    fashion_mnist.main(fashion_mnist.Config(out=tmp_path, **settings))
    assert sorted(sorted(run["latent_size"] for run in runs) for runs in compiled) == [[2, 20], [3, 20], [20, 20]]


def test_a_panel_is_summarized_beside_the_paper():
    config = fashion_mnist.Config(arithmetics=("released",))
    runs = [run for _, members in fashion_mnist.missing(config, []) for run in members]
    done = [{"run": run, "auroc": {"rec": 0.5 + 0.1 * run["seed"], "kl": 0.4, "elbo": 0.3}} for run in runs]
    rows = fashion_mnist.summary(config, done)
    assert len(rows) == 3 * (6 + 5 + 6 + 11)
    tuned = next(row for row in rows if row["value"] == "5*" and row["score"] == "rec")
    assert (tuned["seeds"], tuned["paper"]) == (3, 0.72)
    assert tuned["auroc_mean"] == pytest.approx(0.6)
    assert tuned["auroc_std"] == pytest.approx(0.1)
    classes = next(row for row in fashion_mnist.distances(rows) if row["panel"] == "held_out_class")
    papers = [values[1] for values in fashion_mnist.PAPER["held_out_class"].values()]
    assert classes["kl"] == pytest.approx(np.mean(np.abs(0.4 - np.array(papers))))


def test_wins_over_settings_are_counted_with_intervals():
    cases = [{"kl": 0.6, "rec": 0.5}, {"kl": 0.7, "rec": 0.5}, {"kl": 0.4, "rec": 0.5}]
    kl, rec = winners.wins(cases, ["kl", "rec"])
    assert (kl["settings"], kl["wins"], kl["worst"], rec["wins"]) == (3, 2, 0.4, 1)
    share, low, high = kl["share"]
    assert share == pytest.approx(2 / 3)
    # Clopper and Pearson's limits are quantiles of beta distributions.
    assert (low, high) == pytest.approx((beta.ppf(0.025, 2, 2), beta.ppf(0.975, 3, 1)))
    assert winners.beats(cases, "kl", ["rec"])[0] == pytest.approx(2 / 3)


def robustness_rows(config: robustness.Config) -> list[dict]:
    """Random results of all runs; the second one diverged."""
    random = np.random.default_rng(0)
    runs = [run for held_out in config.classes for run in robustness.runs_of(config, held_out)]
    rows = [
        {"run": run, "seconds": 1.0, "loss": 0.0}
        | {
            what: dict(zip(robustness.SCORES, random.random(3).tolist(), strict=True))
            for what in ("auroc", "validation")
        }
        for run in runs
    ]
    rows[1] |= {"auroc": None, "validation": None, "loss": None}
    return rows


def test_robustness_trains_a_grid_and_skips_finished_classes():
    config = robustness.Config()
    assert sum(len(robustness.runs_of(config, held_out)) for held_out in config.classes) == 2700
    runs, labels = robustness.runs_of(config, 3), np.arange(20) % 10
    population = jaxvae.grid(**robustness.axes_of(config), hold_out=[3], labels=labels)
    assert population.latent_mask is not None
    np.testing.assert_array_equal(population.seed, [run["seed"] for run in runs])
    np.testing.assert_array_equal(population.latent_mask.sum(axis=1), [run["latent_size"] for run in runs])
    for name in ("log_scale", "beta", "learning_rate"):
        np.testing.assert_allclose(getattr(population.hparams, name), [run[name] for run in runs], rtol=1e-6)
    done = [{"run": run} for run in runs]
    assert robustness.missing(config, done) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert robustness.missing(config, done[1:]) == list(range(10))
    assert robustness.finished(robustness.Config(classes=(4,)), done) == []


def test_runs_of_a_class_that_is_trained_again_count_once(tmp_path, monkeypatch):
    pretend_to_train(monkeypatch, robustness)
    for seeds in ((0,), (0, 1)):
        robustness.main(robustness.Config(classes=(3, 4), seeds=seeds, out=tmp_path))
    rows = files.read_lines(tmp_path / "robustness_runs.jsonl")
    assert len(rows) == len({str(row["run"]) for row in rows}) == 2 * 135 * 2
    assert json.loads((tmp_path / "robustness.json").read_text())[0]["runs"] == len(rows)


def test_validation_images_are_not_trained_on():
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 30))
    images = np.arange(300)[:, None, None] * np.ones((1, 2, 2), int)
    (train, of_train), (validation, of_validation) = (
        robustness.take(images, classes, *places) for places in ((0, 24), (24, 30))
    )
    assert (*np.bincount(of_train), *np.bincount(of_validation)) == (24,) * 10 + (6,) * 10
    np.testing.assert_array_equal(classes[train[:, 0, 0, 0]], of_train)
    assert sorted([*train[:, 0, 0, 0], *validation[:, 0, 0, 0]]) == list(range(300))


def test_robustness_tables_equal_those_of_numpy_and_scipy(tmp_path):
    config = robustness.Config(seeds=(0, 1), beta=(1.0,), latent_size=(5, 20))
    rows = robustness_rows(config)
    found = robustness.summary(config, rows)
    assert (found["runs"], found["diverged"], found["settings"], found["classes"]) == (600, 1, 30, 10)
    run = {name: [row["run"][name] for row in rows] for name in rows[0]["run"]}
    nothing = dict.fromkeys(robustness.SCORES, np.nan)
    auroc, validation = (
        np.array([[(row[what] or nothing)[name] for name in robustness.SCORES] for row in rows])
        for what in ("auroc", "validation")
    )
    of_score = next(row for row in found["distribution"] if row["score"] == "kl")
    assert of_score["median"] == pytest.approx(np.nanmedian(auroc[:, 1]))
    assert of_score["p5"] == pytest.approx(np.nanpercentile(auroc[:, 1], 5))
    assert of_score["below_half"] == pytest.approx(np.sum(auroc[:, 1] < 0.5) / 599)
    assert of_score["wins"][0] == pytest.approx(np.sum(np.argmax(auroc, axis=1)[np.arange(600) != 1] == 1) / 599)

    # [class, setting, seed]; the default setting is where its three axes are.
    cube, criterion = auroc.reshape(10, 30, 2, 3), validation.reshape(10, 30, 2, 3)
    usual = np.flatnonzero(
        np.all([np.array(run[name]) == robustness.DEFAULT[name] for name in robustness.DEFAULT], axis=0)
    )
    assert len(usual) == 20
    regrets = np.nanmax(cube, axis=1)[..., 2] - auroc[usual, 2].reshape(10, 2)
    by_elbo = np.take_along_axis(cube[..., 2], np.nanargmin(criterion[..., 0], axis=1)[:, None], axis=1)[:, 0]
    correlations = [
        np.mean([spearmanr(-c[:, s, 1], a[:, s, 0], nan_policy="omit").statistic for s in (0, 1)])
        for c, a in zip(criterion, cube, strict=True)
    ]
    table = {row["choice"]: row for row in found["regret"]}
    expected = {
        "default": regrets,
        "elbo": np.nanmax(cube, axis=1)[..., 2] - by_elbo,
        "random": np.nanmax(cube, axis=1)[..., 2] - np.nanmean(cube, axis=1)[..., 2],
    }
    for choice, values in expected.items():
        assert table[choice]["nll"][0] == pytest.approx(values.mean()), choice
    assert found["correlation"][1]["elbo"][0] == pytest.approx(np.mean(correlations))
    interval = bootstrap((regrets.mean(axis=1),), np.mean, method="percentile", random_state=1).confidence_interval
    assert table["default"]["nll"][1:] == pytest.approx([*interval], abs=0.02)
    robustness.draw(tmp_path / "robustness.png", robustness.groups_of(rows), found)
    assert len(list(robustness.in_words(found))) == 3


def test_an_inserted_lesion_agrees_with_its_mask(tmp_path):
    voxels, brain, _ = head(0, shape=(40, 44, 36))
    scan = Scan("p", "p", write_volume(tmp_path / "p.nii.gz", voxels), write_volume(tmp_path / "b.nii.gz", brain), None)
    made = brain_scans.insert(scan, tmp_path / "made", 0)
    before, after = volume_files.read(scan.image), volume_files.read(made.image)
    assert made.lesion is not None
    lesion = volume_files.read_mask(made.lesion, after)
    change = after.voxels - before.voxels
    assert 0 < lesion.sum() < 0.3 * brain.sum()
    assert not lesion[~brain].any()
    np.testing.assert_allclose(change[~brain], 0)
    deviation = voxels[brain].std()
    assert (change[lesion] > 0.74 * deviation).all()
    assert change[brain & ~lesion].max() < 0.76 * 1.5 * deviation
    darker = brain_scans.insert(scan, tmp_path / "darker", 1)
    assert (volume_files.read(darker.image).voxels - before.voxels)[brain].min() < -deviation


def test_brain_settings_vary_one_axis_at_a_time():
    config = brain_mri.Config(axes=("latent_size", "size", "log_scale"))
    settings = brain_mri.settings(config)
    assert len(settings) == 1 + 4 + 3 + 5
    assert all(sum(one[axis] != brain_mri.BASE[axis] for axis in one) <= 1 for one in settings)


def brain_rows(test: str, setting: dict[str, float], captions: tuple[str, ...]) -> list[dict]:
    """Rows of every score, one seed per caption. Captions differ because tables leave out different voxels."""
    scores = {**dict.fromkeys(brain_mri.MAPS, 0.5), "brightness": 0.4, "equalised_brightness": 0.55}
    return [
        {"task": "t1", "test": test, **setting, "seed": seed, "epochs": 80, "patience": 10}
        | {"table": "own_grid", "caption": caption, "prevalence": 0.05, "score": score, "volumes": 9, "seconds": 10}
        | dict.fromkeys(("auroc", "average_precision", "best_dice"), (base + 0.1 * seed, 0.1 * seed, 1.0))
        | {"aupro": None}
        for seed, caption in enumerate(captions)
        for score, base in scores.items()
    ]


def test_brain_rows_are_averaged_over_seeds():
    done = brain_rows("x", brain_mri.BASE, ("a", "a; 3 voxels lie outside", "a"))
    rows = brain_mri.over_seeds(done)
    assert len(rows) == 7
    assert rows[0]["auroc_mean"] == pytest.approx(0.6)
    assert rows[0]["auroc_std"] == pytest.approx(0.1)
    assert rows[0]["auroc_interval"] == pytest.approx([0.1, 1.0])
    assert rows[0]["aupro_mean"] is None
    text = brain_mri.markdown(brain_mri.over_seeds(done))
    assert "**x.** a; 9 volumes, 3 seeds" in text
    assert "0.600 ± 0.100 [0.10, 1.00]" in text
    assert "| x (9) " in text
    assert " 0.050 " in text


def test_the_papers_auroc_is_shown_where_comparable():
    own = brain_rows("BraTS-2017", brain_mri.BASE, ("a", "a"))
    done = [{**row, "task": "paper", "table": table} for table in ("own_grid", "model_resolution") for row in own]
    text = brain_mri.markdown(brain_mri.over_seeds(done))
    assert text.count("AUROC in the paper") == 1
    lines = text.partition("AUROC in the paper")[2].splitlines()
    assert next(line for line in lines if line.startswith("| Combi")).endswith(" 0.830 |")
    assert next(line for line in lines if line.startswith("| Rec-Error")).endswith(" 0.710 |")


def test_the_paper_task_names_the_folders_it_needs():
    with pytest.raises(InputError, match="--tasks paper needs --hcp, --brats and --isles"):
        brain_mri.main(brain_mri.Config(tasks=("paper",)))


def test_a_setting_counts_once_whatever_its_captions():
    other = {**brain_mri.BASE, "latent_size": 64}
    done = brain_rows("x", brain_mri.BASE, ("a", "a")) + brain_rows("x", other, ("b", "c; 3 voxels"))
    done += brain_rows("y", brain_mri.BASE, ("a",))
    won = {row["score"]: row for row in brain_mri.wins(brain_mri.over_seeds(done), "auroc")}
    assert (won["equalised x"]["settings"], won["equalised x"]["wins"]) == (3, 3)
    assert won["Combi"]["beats Rec-Error"][0] == 0
    assert brain_mri.wins(brain_mri.over_seeds(done), "auroc", "x")[0]["settings"] == 2
    assert "x alone:" in brain_mri.markdown(brain_mri.over_seeds(done))
    assert "y alone:" not in brain_mri.markdown(brain_mri.over_seeds(done))


def test_brain_figures_are_drawn(tmp_path):
    done = [row for size in (32, 64, 128) for row in brain_rows("x", {**brain_mri.BASE, "size": size}, ("a", "a"))]
    brain_mri.figure(tmp_path / "base.png", brain_mri.over_seeds(done))
    brain_mri.settings_figure(tmp_path / "settings.png", brain_mri.over_seeds(done))
    assert {path.name for path in tmp_path.iterdir()} == {"base.png", "settings.png"}


def test_a_data_set_with_skipped_scans_is_refused():
    with pytest.raises(InputError, match=r"no mask \(2 scans would be left out\); complete the data set"):
        brain_scans.whole([Rejected(Path("a.nii"), "a.nii: no mask"), Rejected(Path("b.nii"), "b.nii: no mask")])


@pytest.mark.slow
def test_the_file_with_custom_methods_is_a_command(tmp_path: Path) -> None:
    fork = [sys.executable, str(Path(__file__).parents[1] / "experiments" / "fork.py")]
    flags = ["--data", "phantom", "--size", "32", "--model", "linear", "--objective", "clipped", "--steps", "5"]
    for command in (
        ["train", "run", *flags],
        ["evaluate", "run", "--maps", "absolute", "highest", "elbo_grad", "--resamples", "0"],
        ["report", "run"],
    ):
        subprocess.run([*fork, *command], cwd=tmp_path, check=True, timeout=300)
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "Absolute error" in page
    assert "Highest error" in page
