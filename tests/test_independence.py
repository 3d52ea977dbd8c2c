"""What must not depend on what: held-out images on nothing fitted, keys on all that they stand for,
intervals on all that is random. Each test fails where one line of the package lets go of that."""

import dataclasses
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import ckptsel
from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.order import in_training_order
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.comparison.changes import independent_difference
from ckptsel.confirmation.learning_rate import Choice, best_rate, choose_rate, try_rates
from ckptsel.confirmation.one_goal import _agreement
from ckptsel.confirmation.protocols import FE, FT
from ckptsel.confirmation.race import race
from ckptsel.confirmation.reorder import reorder
from ckptsel.confirmation.runs import Task, Transfer
from ckptsel.errors import InputError
from ckptsel.features.candidate import Candidate
from ckptsel.features.encoders import ImageEncoder
from ckptsel.features.extraction import feature_key
from ckptsel.features.store import Cache
from ckptsel.gating.baseline import compare_with_stored
from ckptsel.gating.gate import CANNOT_TELL, FAIL, PASS, best_accuracy, hold_against
from ckptsel.ranking import scoring as scoring_module
from ckptsel.ranking.judgement import Readings, judge
from ckptsel.ranking.order import arrange, order_rows
from ckptsel.ranking.scoring import _score_key
from ckptsel.ranking.workspace import open_workspace
from ckptsel.results.estimate import Measured
from ckptsel.results.ranking import Ranking
from ckptsel.scores import ScoreInputs, ScoreResult, known_scores
from ckptsel.scores.accuracy import is_at_chance
from ckptsel.scores.strength import Strength
from ckptsel.settings.policy import Policy
from ckptsel.settings.rank import RankSettings
from ckptsel.target.pixels import Preprocessing
from ckptsel.target.splits import plan_cross_validation, plan_holdout, plan_validation
from tests.conftest import ABOUT
from tests.test_gate import arrays_of, make_ranking, other_ranking, stored
from tests.test_race import one_by_one
from tests.test_ranking import make_row

# ------------------------------------------------------------------- intervals and tie sets


@pytest.mark.parametrize(
    ("n_errors", "least", "most"),
    [
        (3, 0.80, 0.90),  # normal theory: 85 % by 1.96 errors; by 2.58 it were 66, by 1.64 91
        (0, 0.01, 0.045),  # 2.5 %
    ],
)
def test_how_often_the_tie_set_leaves_out_one_so_many_standard_errors_behind(
    n_errors: float, least: float, most: float
) -> None:
    random = np.random.default_rng(0)
    n_trials, n_images, left_out = 400, 60, 0
    for trial in range(n_trials):
        behind = random.standard_normal(n_images) + n_errors / np.sqrt(n_images)
        easy = 3 * random.standard_normal(n_images)
        per_image = np.stack([easy, easy - behind])
        readings = Readings(per_image[:, None], is_accuracy=False)
        left_out += not judge(readings, n_resamples=500, seed=trial).in_tie_set[1]
    assert least <= left_out / n_trials <= most


# --------------------------------------------------------- nothing fitted saw what it is read on


def noisy_classes(n: int = 90, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Features off the origin, with signal in a wide direction and in a narrow one, and labels."""
    random = np.random.default_rng(0)
    labels = np.arange(n) % 3
    features = random.standard_normal((n, d)) * np.linspace(3, 0.3, d) + 0.5
    features[:, 0] += 2 * labels
    features[:, -1] += 0.8 * labels
    return features.astype(np.float32), labels


def spoil(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    spoilt = features.copy()
    garbage = np.random.default_rng(1).standard_normal((len(rows), features.shape[1]))
    spoilt[rows] = 1e3 * (garbage + 1)
    return spoilt


@pytest.mark.parametrize("probe", ["logistic", "paper"])
@pytest.mark.parametrize("view", ["all", "main", "residual"])
def test_held_out_images_of_a_fold_change_nothing_that_is_fitted_there(
    view: str, probe: str
) -> None:
    """Neither the basis nor the mean, the scale or the strength, though other folds fit on them."""
    features, labels = noisy_classes()
    plan = plan_cross_validation(labels, seed=0)
    fitted, held = plan.folds[1]
    # The other folds are left out for their time; what is fitted on as a whole stays everything.
    plan = dataclasses.replace(plan, folds=((fitted, held),), evaluated=held, n_repeats=1)
    assert len(plan.fit_part) == len(labels)
    kept = np.arange(len(held)) % 2 == 0
    before, after, relabelled = (
        ScoreInputs(f, y, plan, probe=probe).held_out(view)
        for f, y in (
            (features, labels),
            (spoil(features, held[~kept]), labels),
            (features, np.where(np.isin(np.arange(len(labels)), held), (labels + 1) % 3, labels)),
        )
    )
    assert before.details == after.details == relabelled.details
    assert np.array_equal(before.predictions[:, kept], after.predictions[:, kept])
    assert np.array_equal(before.log_likelihoods[:, kept], after.log_likelihoods[:, kept])
    assert np.array_equal(before.predictions, relabelled.predictions)
    assert not np.allclose(before.log_likelihoods, relabelled.log_likelihoods)


def test_all_folds_of_a_cross_validation_are_apart_from_what_they_hold_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ckptsel.scores.probe.PAPER_EPOCHS", 2)
    features, labels = noisy_classes(60, 5)
    plan = plan_cross_validation(labels, seed=0)
    before = ScoreInputs(features, labels, plan, probe="paper").held_out("main")
    for i in (0, 4, 7):
        held = plan.folds[i][1]
        kept = held[::2]
        spoilt = spoil(features, np.setdiff1d(held, kept))
        after = ScoreInputs(spoilt, labels, plan, probe="paper").held_out("main")
        repeat = i // 5
        same = (before.log_likelihoods == after.log_likelihoods)[repeat]
        assert same[kept].all()
        # The folds that do fit on the garbage show that it is some.
        others = np.setdiff1d(np.arange(60), held)
        assert not same[others].any()


@pytest.mark.parametrize("name", ["logme", "logme_thuml", "main_component"])
def test_what_is_computed_of_the_training_part_is_of_that_alone(name: str) -> None:
    features, labels = noisy_classes()
    for plan in (plan_validation(60, 30), plan_holdout(labels, 0.3, seed=0)):
        before, after = (
            known_scores()[name].compute(ScoreInputs(f, labels, plan))
            for f in (features, spoil(features, plan.evaluated))
        )
        if name == "main_component":
            key = "singular_values"
            assert np.array_equal(before.arrays[key], after.arrays[key])
            assert before.details["n_features"] == after.details["n_features"]
            assert before.details["C"] == after.details["C"]
        else:
            assert before.value == after.value


def test_the_residual_is_what_the_main_part_leaves_and_blind_to_what_it_holds() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = (random.standard_normal((90, 4)) * [20, 1, 1, 1]).astype(np.float32)
    features[:, 0] += 100 * labels
    inputs = ScoreInputs(features, labels, plan_validation(60, 30))
    views = {view: inputs.held_out(view) for view in ("all", "main", "residual")}
    n = {view: held_out.details["n_features"] for view, held_out in views.items()}
    assert n["main"] + n["residual"] == n["all"] == 4
    right = {view: (out.predictions[0] == labels[60:]).mean() for view, out in views.items()}
    assert min(right["main"], right["all"]) > 0.8 and right["residual"] < 0.6
    loglik = known_scores()["linear_probe_loglik"].compute(inputs)
    assert np.array_equal(loglik.per_image, views["all"].log_likelihoods.mean(0))


def test_the_images_that_choose_the_strength_are_drawn_by_the_seed(monkeypatch) -> None:
    features, labels = noisy_classes()
    chosen_on = []

    def choose(several, n_classes: int) -> list[tuple[str, Strength]]:
        chosen_on.append(several[0]["plain"][0].held_inputs)
        return [("plain", Strength(1.0, bracketed=True))]

    monkeypatch.setattr("ckptsel.scores.held_out.choose", choose)
    for seed in (0, 0, 1):
        ScoreInputs(features, labels, plan_validation(60, 30), seed=seed).held_out("all")
    first, same, other = chosen_on
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize(("n_errors", "at_chance"), [(1.7, True), (2.3, False)])
def test_two_standard_errors_ahead_of_the_largest_class_are_asked_of_a_probe(
    n_errors: float, at_chance: bool
) -> None:
    noise = np.tile([-1.0, 1.0], 200)
    assert is_at_chance(noise + n_errors / np.sqrt(400)) == at_chance


@pytest.mark.parametrize("name", ["logme", "logme_thuml"])
def test_scores_of_the_whole_training_part_do_not_depend_on_its_folds(name: str) -> None:
    features, labels = noisy_classes()
    values = [
        known_scores()[name].compute(ScoreInputs(features, labels, plan)).value
        for plan in (
            plan_cross_validation(labels, seed=0),
            plan_cross_validation(labels, seed=1),
            dataclasses.replace(plan_validation(60, 30), fit_part=np.arange(90)),
        )
    ]
    assert values[0] == values[1] == values[2]


def test_the_paper_probe_is_drawn_by_the_seed_and_the_main_part_by_the_energy() -> None:
    features, labels = noisy_classes()
    plan = plan_validation(60, 30)
    first, same, other = (
        ScoreInputs(features, labels, plan, probe="paper", seed=seed).held_out("all")
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first.log_likelihoods, same.log_likelihoods)
    assert not np.array_equal(first.log_likelihoods, other.log_likelihoods)
    few, many = (
        ScoreInputs(features, labels, plan, energy=energy, probe="paper").held_out("main")
        for energy in (0.3, 0.95)
    )
    assert few.details["n_features"] < many.details["n_features"]


def test_the_settings_of_a_ranking_reach_its_scores(trajectory: Path, images: Path) -> None:
    for name in ("checkpoint-005", "checkpoint-010"):
        (trajectory / f"{name}.safetensors").unlink()
    options = {"goal": "ft", "scores": ("main_component",), "cache": False}
    (usual,) = ckptsel.rank(trajectory, images, **options)
    (other,) = ckptsel.rank(trajectory, images, energy=0.3, probe="paper", **options)
    usual, other = (row.scores["main_component"].details for row in (usual, other))
    assert other["n_features"] < usual["n_features"]
    assert "C" in usual and "C" not in other


# ----------------------------------------------------------------------------------- folds


def test_every_repeat_has_folds_of_its_own_that_cover_each_image_once() -> None:
    labels = np.arange(60) % 3
    plan = plan_cross_validation(labels, seed=0)
    assert plan.n_repeats == 3
    repeats = [[held for _, held in plan.folds[i : i + 5]] for i in (0, 5, 10)]
    for folds in repeats:
        assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(60))
    together = []
    for folds in repeats:
        fold_of = np.empty(60, dtype=int)
        for i, held in enumerate(folds):
            fold_of[held] = i
        together.append(fold_of[:, None] == fold_of)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(together[a], together[b])
    holdouts = [plan_holdout(labels, 0.2, seed=seed).evaluated for seed in (0, 1)]
    assert not np.array_equal(*holdouts)
    other = plan_cross_validation(labels, seed=1)
    pairs = zip(plan.folds, other.folds, strict=True)
    assert not any(np.array_equal(mine[1], its[1]) for mine, its in pairs)


# ------------------------------------------------------------------------------ keys of caches


def test_a_scores_key_is_made_of_all_that_determines_it(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(60) % 3
    score = known_scores()["linear_probe"]
    plan = plan_cross_validation(labels, seed=0)

    def key(score=score, features=("f0", "f1"), labels=labels, plan=plan, **settings) -> str:
        target = SimpleNamespace(labels=labels, evaluation=plan)
        workspace = SimpleNamespace(settings=RankSettings(**settings), target=target)
        return _score_key(score, list(features), workspace)

    fitted, held = plan.folds[0]
    moved = (np.sort(np.append(fitted[1:], held[0])), np.sort(np.append(held[1:], fitted[0])))
    keys = [
        key(),
        key(seed=1),
        key(energy=0.9),
        key(probe="paper"),
        key(labels=(labels + 1) % 3),
        key(plan=dataclasses.replace(plan, folds=(moved, *plan.folds[1:]))),
        key(plan=dataclasses.replace(plan, folds=((fitted[:-1], held), *plan.folds[1:]))),
        key(plan=dataclasses.replace(plan, folds=((fitted, held[:-1]), *plan.folds[1:]))),
        key(plan=dataclasses.replace(plan, n_repeats=1)),
        key(score=dataclasses.replace(score, version=score.version + 1)),
        key(score=known_scores()["main_component"]),
        key(features=("other", "f1")),
        key(features=("f0", "other")),
    ]
    assert key() == keys[0]
    version = scoring_module.SCORES_VERSION
    monkeypatch.setattr(scoring_module, "SCORES_VERSION", version + 1)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_another_seed_does_not_get_the_scores_of_the_first(trajectory: Path, images: Path) -> None:
    for name in ("checkpoint-005", "checkpoint-010"):
        (trajectory / f"{name}.safetensors").unlink()
    options = {"probe": "paper", "scores": ("linear_probe", "linear_probe_loglik")}
    first, second = (ckptsel.rank(trajectory, images, seed=seed, **options) for seed in (0, 1))
    fresh = ckptsel.rank(trajectory, images, seed=1, cache=False, **options)
    for row in fresh:
        name = "linear_probe_loglik"
        value = row.scores[name].value
        assert second[row.name].scores[name].value == pytest.approx(value, abs=1e-6)
        assert abs(first[row.name].scores[name].value - value) > 1e-4


SHORT_FE = dataclasses.replace(FE, n_steps=27, batch_size=8)
SHORT_FT = dataclasses.replace(FT, n_steps=8, batch_size=8, augment=("crop",))


def open_task(trajectory: Path, images: Path, protocol, cache: Path) -> Task:
    found = scan_checkpoints(trajectory)
    workspace = open_workspace(RankSettings(), found, str(images), quiet=True)
    fitted, held = workspace.target.evaluation.folds[0]
    return Task(protocol, workspace, Cache(cache), fitted, held)


def candidates_in(trajectory: Path) -> list[Candidate]:
    """At the last layer."""
    return [Candidate(checkpoint) for checkpoint in scan_checkpoints(trajectory)]


def another(value: object) -> object:
    """A value of the same kind that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, "flip")
    if isinstance(value, str):
        return value + "x"
    return 0.5 if value is None else value + 1


def test_a_runs_key_is_made_of_all_that_determines_it(
    trajectory: Path, images: Path, tmp_path: Path
) -> None:
    task = open_task(trajectory, images, SHORT_FE, tmp_path / "cache")
    candidate, other, _ = candidates_in(trajectory)
    elsewhere = Candidate(candidate.checkpoint, "layer2")

    def key(candidate=candidate, seed: int = 0, lr: float = 0.1, **changes) -> str:
        return dataclasses.replace(task, **changes).key(candidate, seed, lr)

    labels = (task.workspace.target.labels + 1) % 3
    target = dataclasses.replace(task.workspace.target, labels=labels)
    keys = [
        key(),
        key(other),
        key(elsewhere),
        key(seed=1),
        key(lr=0.2),
        key(fitted=task.fitted[1:]),
        key(held=task.held[1:]),
        key(workspace=dataclasses.replace(task.workspace, loaded=target)),
    ]
    for field in dataclasses.fields(SHORT_FE):
        if field.name != "lrs":  # those to choose from; a run has one
            value = another(getattr(SHORT_FE, field.name))
            protocol = dataclasses.replace(SHORT_FE, **{field.name: value})
            keys.append(key(protocol=protocol))
    assert key() == keys[0]
    assert len(set(keys)) == len(keys)
    assert key(protocol=SHORT_FT) == key(elsewhere, protocol=SHORT_FT), "trained as a whole"


def test_another_rate_and_another_seed_give_curves_of_their_own(
    trajectory: Path, images: Path, tmp_path: Path
) -> None:
    task = open_task(trajectory, images, SHORT_FE, tmp_path / "cache")
    fresh = dataclasses.replace(task, cache=Cache(tmp_path / "fresh"))
    candidate = candidates_in(trajectory)[0]

    layers = [task.start(candidate, seed, 0.1).model.weight for seed in (0, 0, 1)]
    assert torch.equal(layers[0], layers[1]) and not torch.equal(layers[0], layers[2])

    def curve(task: Task, seed: int, lr: float) -> list:
        run = Transfer(task, candidate, seed, lr)
        run.advance(SHORT_FE.n_steps)
        return run.record.points

    first = curve(task, 0, 0.01)
    rate, seed = curve(task, 0, 1.0), curve(task, 1, 0.01)
    assert rate != first and seed != first
    assert rate == curve(fresh, 0, 1.0)
    assert seed == curve(fresh, 1, 0.01)


# ------------------------------------------------------------------------------- real training


def spoil_held_out(images: Path, spoilt: Path, keep: int) -> Path:
    """The same target with noise in place of held-out images, but for the first of each class."""
    shutil.copytree(images, spoilt)
    random = np.random.default_rng(0)
    for folder in (images / "val").iterdir():
        for i in range(keep, 10):
            noise = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(noise).save(spoilt / "val" / folder.name / f"{i}.png")
    return spoilt


@pytest.mark.parametrize("protocol", [SHORT_FE, SHORT_FT], ids=["fe", "ft"])
def test_the_images_of_the_race_have_no_say_in_the_learning_rate(
    trajectory: Path, images: Path, tmp_path: Path, protocol
) -> None:
    for name in ("checkpoint-005", "checkpoint-010"):
        (trajectory / f"{name}.safetensors").unlink()
    protocol = dataclasses.replace(protocol, lrs=(1e-4, 0.1))
    spoilt = spoil_held_out(images, tmp_path / "spoilt", keep=0)
    sweeps = []
    for folder in (images, spoilt):
        task = open_task(trajectory, folder, protocol, tmp_path / f"runs-{folder.name}")
        sweeps.append(choose_rate(task, candidates_in(trajectory), 0, quiet=True))
        inner = {i for run in sweeps[-1].runs for i in (*run.task.fitted, *run.task.held)}
        assert inner <= set(task.fitted.tolist())
    honest, other = sweeps
    assert honest.lr == other.lr
    assert honest.accuracy == other.accuracy
    assert honest.accuracy[0.1] != honest.accuracy[1e-4]
    curves = [[run.record.points for run in sweep.runs] for sweep in sweeps]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("protocol", [SHORT_FE, SHORT_FT], ids=["fe", "ft"])
def test_held_out_images_change_nothing_of_a_run(
    trajectory: Path, images: Path, tmp_path: Path, protocol
) -> None:
    spoilt = spoil_held_out(images, tmp_path / "spoilt", keep=5)
    losses, predictions = [], []
    for folder in (images, spoilt):
        task = open_task(trajectory, folder, protocol, tmp_path / f"runs-{folder.name}")
        run = Transfer(task, candidates_in(trajectory)[0], 0, 0.05)
        predictions.append(run.advance(protocol.n_steps))
        losses.append([point.train_loss for point in run.record.points])
    held = task.workspace.target.image_sets[1]
    kept = np.array([int(Path(held.locate(i)).stem) < 5 for i in range(len(held))])
    assert kept.sum() == 15
    assert losses[0] == losses[1]
    assert np.array_equal(predictions[0][kept], predictions[1][kept])
    assert not np.array_equal(predictions[0][~kept], predictions[1][~kept])


class MadeRun:
    """In place of a training run: an accuracy by rate and checkpoint, None where it diverges."""

    accuracy: ClassVar[dict[float, tuple[float | None, ...]]] = {}

    def __init__(self, task, candidate, seed: int, lr: float) -> None:
        self.task, self.candidate, self.lr = task, candidate, lr
        reached = self.accuracy[lr][int(candidate.checkpoint.epoch) // 5]
        self.record = SimpleNamespace(
            points=[SimpleNamespace(held_accuracy=reached)],
            diverged_at=1 if reached is None else None,
        )

    def advance(self, to_step: int, on_points: object) -> None:
        pass


@pytest.mark.parametrize(
    ("accuracy", "chosen"),
    [
        # The mean over all checkpoints counts, not the best of them.
        ({0.01: (0.6, 0.6, 0.6), 0.1: (0.9, 0.4, 0.4), 1.0: (0.5, 0.5, 0.5)}, 0.01),
        # One that diverges rules its rate out, however good the others are.
        ({0.01: (0.6, 0.6, 0.6), 0.1: (0.9, None, 0.9), 1.0: (0.5, 0.5, 0.5)}, 0.01),
        # Of equals the lowest.
        ({0.01: (0.5, 0.5, 0.5), 0.1: (0.7, 0.7, 0.7), 1.0: (0.7, 0.7, 0.7)}, 0.1),
    ],
)
def test_the_rate_is_the_best_in_the_mean_of_those_that_train_all(
    trajectory: Path, images: Path, tmp_path: Path, monkeypatch, accuracy, chosen: float
) -> None:
    protocol = dataclasses.replace(SHORT_FE, lrs=(0.01, 0.1, 1.0))
    task = open_task(trajectory, images, protocol, tmp_path / "cache")
    monkeypatch.setattr(MadeRun, "accuracy", accuracy)
    monkeypatch.setattr("ckptsel.confirmation.learning_rate.Transfer", MadeRun)
    assert choose_rate(task, candidates_in(trajectory), 0, quiet=True).lr == chosen


@pytest.mark.parametrize(
    ("peak", "diverges_from", "tried", "chosen", "at_edge"),
    [
        # Inside: half a decade to each side besides.
        (0.03, 1e9, (0.001, 0.00316, 0.01, 0.0316, 0.1, 1), 0.0316, False),
        # Beyond the upper end, the lower end, and both bounds of the search.
        (20, 1e9, (0.001, 0.01, 0.1, 1, 3.16, 10, 31.6, 100), 31.6, False),
        (1e-4, 1e9, (1e-5, 3.16e-5, 1e-4, 3.16e-4, 0.001, 0.01, 0.1, 1), 1e-4, False),
        (1e9, 1e9, (0.001, 0.01, 0.1, 1, 10, 100, 316, 1000, 3160), 3160, True),
        # What diverges is an end.
        (1e9, 5, (0.001, 0.01, 0.1, 0.316, 1, 3.16, 10), 3.16, False),
        (1e9, 0.5, (0.001, 0.01, 0.0316, 0.1, 0.316, 1), 0.316, False),
        # Where all diverge lower ones are tried.
        (1e9, 2e-4, (1e-5, 3.16e-5, 1e-4, 3.16e-4, 0.001, 0.01, 0.1, 1), 1e-4, False),
    ],
)
def test_the_search_brackets_the_best_rate(peak, diverges_from, tried, chosen, at_edge) -> None:
    def measure(lrs: Sequence[float]) -> list[float | None]:
        return [None if lr >= diverges_from else -abs(math.log(lr / peak)) for lr in lrs]

    accuracy = try_rates((0.001, 0.01, 0.1, 1.0), measure, search=True)
    assert tuple(accuracy) == tried
    assert best_rate(accuracy) == chosen
    assert Choice(chosen, accuracy).at_edge is at_edge
    exactly = try_rates((0.001, 0.01, 0.1, 1.0), measure, search=False)
    assert tuple(exactly) == (0.001, 0.01, 0.1, 1.0)


def test_a_search_ends_where_every_rate_diverges() -> None:
    accuracy = try_rates((0.001, 0.01, 0.1, 1.0), lambda lrs: [None] * len(lrs), search=True)
    assert tuple(accuracy) == (1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.1, 1)
    assert best_rate(accuracy) is None


def test_each_candidate_has_the_rate_of_its_own_runs(
    trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    task = open_task(trajectory, images, SHORT_FE, tmp_path / "cache")
    monkeypatch.setattr(
        MadeRun,
        "accuracy",
        {
            0.001: (0.1, 0.2, None),
            0.01: (0.5, 0.3, None),
            0.1: (0.6, 0.8, None),
            1.0: (0.7, 0.2, None),
        },
    )
    monkeypatch.setattr("ckptsel.confirmation.learning_rate.Transfer", MadeRun)
    monkeypatch.setattr("ckptsel.confirmation.learning_rate.N_CHECKPOINTS", 3)
    found = candidates_in(trajectory)
    # The third trains with no rate: none can be shared.
    with pytest.raises(InputError, match="every learning rate of 0.001, 0.01, 0.1, 1 diverged"):
        choose_rate(task, found, 0, quiet=True, per_candidate=True)
    monkeypatch.setattr("ckptsel.confirmation.learning_rate.spread", lambda items, n: items[:2])
    sweep = choose_rate(task, found, 0, quiet=True, per_candidate=True)
    assert sweep.lr == 0.1
    assert {name: own.lr for name, own in sweep.own.items()} == {
        "checkpoint-001": 1.0,
        "checkpoint-005": 0.1,
        "checkpoint-010": 0.1,  # trained with none: that of the others
    }
    assert [sweep.rate_of(c.name) for c in found] == [1.0, 0.1, 0.1]
    assert [own.at_edge for own in sweep.own.values()] == [True, False, False]
    # The runs of the shared rate are not made again.
    assert sweep.n_steps == 3 * 4 * task.protocol.for_sweep(10).n_steps
    assert len(sweep.runs) == 12


# ----------------------------------------------------------------------- the race and its order

RUNGS = (10, 30, 90)
COURSE = {
    "winner": {10: 0.75, 30: 0.80, 90: 0.90},
    "diverges": {10: 0.75, 30: 0.79},
    "leaves first": {10: 0.50},
    "second": {10: 0.75, 30: 0.80, 90: 0.89},
    "leaves then": {10: 0.74, 30: 0.45},
}
N_IMAGES = 200


def made_advance(course: dict[str, dict[int, float]]):
    """Exact accuracies by candidate and step; without one it diverges."""
    ease = np.random.default_rng(0).permutation(N_IMAGES) / N_IMAGES

    def advance(name: str, seed: int, step: int) -> np.ndarray | None:
        if step not in course[name]:
            return None
        # Before the end what a candidate gets right is its own, so that a point tells nobody apart.
        own = ease if step == 90 else np.roll(ease, 17 * list(course).index(name))
        return own < course[name][step]

    return advance


def raced():
    """One that leaves after each of the first rungs, one that diverges, two that go on."""
    ended = race(
        list(COURSE), (0, 1), RUNGS, one_by_one(made_advance(COURSE)), tolerance=0, n_resamples=400
    )
    there = {step: sorted(reached) for step, reached in ended.correct.items()}
    assert there == {step: sorted(n for n in COURSE if step in COURSE[n]) for step in RUNGS}
    return ended


UNTRIED = {"untried, middle": -2.0, "untried, better": -1.0, "untried, worse": -3.0}
SCORED = {**dict.fromkeys(COURSE, 0.0), **UNTRIED}


def test_a_loser_is_compared_at_the_last_step_that_it_reached() -> None:
    behind = {standing.name: standing.behind_best for standing in raced().standings}
    assert behind["winner"].value == 0
    assert behind["second"].value == pytest.approx(0.90 - 0.89)
    assert behind["leaves then"].value == pytest.approx(0.80 - 0.45)
    assert behind["leaves first"].value == pytest.approx(0.75 - 0.50)
    assert {b.by for b in behind.values() if b} == {"confirmed"}
    assert {name: b.step for name, b in behind.items() if b} == {
        "winner": 90,
        "second": 90,
        "leaves then": 30,
        "leaves first": 10,
    }


def make_ranked(names: list[str], values: dict[str, float], best: str) -> Ranking:
    """Those names in the order of training, by scores that say `values` of every image."""
    rows = [make_row(name, i) for i, name in enumerate(names)]
    results = {
        name: {"linear_probe": ScoreResult(values[name], np.full(50, values[name]))}
        for name in names
    }
    ordered = order_rows(rows, results, {}, "linear_probe", 100, 0)
    return Ranking(
        goal="fe",
        score="linear_probe",
        checkpoints=tuple(ordered.rows),
        best=best,
        tie_set=(best,),
        references=ordered.references,
        notes=(),
        **ABOUT,
        environment={},
        time_s={},
        created="now",
        version="0",
        units={"linear_probe": "accuracy"},
    )


def test_training_puts_first_what_went_furthest_then_what_scores_say_then_what_diverged() -> None:
    ended = raced()
    standings = [dataclasses.replace(s, p_best=s.p_best or 0.1) for s in ended.standings]
    ended = dataclasses.replace(ended, standings=tuple(standings))
    names = [*UNTRIED, *COURSE]
    ranking = make_ranked(names, SCORED, best="leaves first")
    reordered = reorder(ranking, "fe", {}, {"fe": ended})
    assert [row.name for row in reordered] == [
        "winner",
        "second",
        "leaves then",
        "leaves first",
        "untried, better",
        "untried, middle",
        "untried, worse",
        "diverges",
    ]
    assert [row.rank for row in reordered] == list(range(1, 9))
    assert reordered.best == "winner"
    ties = [row.name for row in reordered if row.in_tie_set]
    assert set(ties) == set(reordered.tie_set) == set(ended.tie_set)
    by_score = {row.name: row.score_rank for row in ranking}
    assert {row.name: row.score_rank for row in reordered} == by_score
    # Those that left, and those that never ran, have no share in being the best.
    shares = {row.name: row.p_best or 0.0 for row in reordered}
    assert shares["winner"] + shares["second"] == pytest.approx(1)
    assert sum(shares.values()) == pytest.approx(1)
    # The last in training is what the baseline `last` names, and how far behind it is.
    assert reordered.references["last"].name == "leaves then"


def test_the_intervals_of_a_race_are_over_seeds_too_and_stay_accuracies() -> None:
    """Two seeds that differ by ten points for both: the same images could not tell that."""
    right = np.arange(500)

    def advance(name: str, seed: int, step: int) -> np.ndarray:
        return right < 500 * (0.85 + 0.1 * seed)

    seeds = [(0, 1), (0,)]
    both, one = (
        race(["a", "b"], s, (1,), one_by_one(advance)).standings[0].accuracy for s in seeds
    )
    assert (both.low, both.high) == (pytest.approx(0.27, abs=0.15), 1.0)
    assert one.high - one.low < 0.1


def test_agreement_is_measured_where_all_that_did_not_diverge_arrived() -> None:
    final = {f"c{i}": 0.5 + 0.08 * i for i in range(5)}
    course = {name: {10: 1.3 - a, 30: 1.3 - a, 90: a} for name, a in final.items()}
    course["diverges"] = {10: 0.5}
    ended = race(
        list(course), (0,), RUNGS, one_by_one(made_advance(course)), full=True, n_resamples=100
    )
    rows = [
        SimpleNamespace(
            name=name,
            order=-i,
            source_accuracy=None,
            scores={"linear_probe": SimpleNamespace(value=final.get(name, 5.0))},
        )
        for i, name in enumerate(course)
    ]
    agreement, step = _agreement(rows, ended, ())
    assert step == 90
    assert agreement["linear_probe"].n == 5
    assert agreement["linear_probe"].kendall_tau.value == pytest.approx(1)
    assert agreement["epoch"].kendall_tau.value == pytest.approx(-1)
    assert "source_accuracy" not in agreement


def test_how_far_others_are_behind_is_told_from_the_highest() -> None:
    """Inside the tie set the log-likelihood decides, and the recommended may be a bit lower in
    accuracy: it too may be behind the best."""
    order = np.random.default_rng(0).permutation(400) / 400
    values = {"a": 0.82, "b": 0.80, "c": 0.81}
    right = {name: (np.roll(order, int(1000 * v)) < v).astype(float) for name, v in values.items()}
    lowest, highest = "b", "a"
    results = {
        name: {
            "linear_probe": ScoreResult(values[name], right[name]),
            "linear_probe_loglik": ScoreResult(-values[name], np.full(400, -values[name])),
        }
        for name in "abc"
    }
    rows = [make_row(name, i) for i, name in enumerate("abc")]
    units = {"linear_probe": "accuracy", "linear_probe_loglik": "nats"}
    ordered = order_rows(rows, results, units, "linear_probe", 200, 0).rows
    assert all(row.in_tie_set for row in ordered)
    assert (ordered[0].name, ordered[-1].name) == (lowest, highest)
    for row in ordered:
        assert row.behind_best.value == pytest.approx(values[highest] - values[row.name])
        assert row.behind_best.low == 0 < row.behind_best.high


def test_of_equals_the_one_trained_first_is_taken() -> None:
    """In the ranking; and of equal source accuracies the baseline is the earlier."""
    names = ["late", "early", "middle"]
    order = {"early": 0, "middle": 1, "late": 2}
    rows = [make_row(name, order[name], source_accuracy=0.5) for name in names]
    results = {name: {"linear_probe": ScoreResult(0.7, np.full(50, 0.7))} for name in names}
    ordered = order_rows(rows, results, {}, "linear_probe", 100, 0)
    assert [row.name for row in ordered.rows] == ["early", "middle", "late"]
    assert ordered.references["source_accuracy"].name == "early"
    assert ordered.references["last"].name == "late"
    advance = {"second": np.arange(90) < 50, "first": np.arange(90) < 50}
    ended = race(["second", "first"], (0,), (1,), one_by_one(lambda name, *_: advance[name]))
    assert ended.winner == "second"


# ------------------------------------------------------------------------------------ the gate


def test_two_intervals_add_up_side_by_side() -> None:
    """What is ahead is lower by my low side and their high side, higher by the other two."""
    mine = Measured(0.80, 0.77, 0.81, by="linear_probe")
    theirs = Measured(0.70, 0.64, 0.74, by="linear_probe")
    ahead = independent_difference(theirs, mine)
    assert ahead.value == pytest.approx(0.10)
    assert ahead.low == pytest.approx(0.10 - 0.05)
    assert ahead.high == pytest.approx(0.10 + np.hypot(0.01, 0.06))


def test_a_copy_of_the_best_has_no_regret() -> None:
    ranking = make_ranked(["a", "b"], {"a": 0.9, "b": 0.7}, best="a")
    copy = make_row("a again", 2, copy_of="a")
    target = ABOUT["target"]
    ranking = dataclasses.replace(
        ranking, checkpoints=tuple(arrange([*ranking, copy])), target=target
    )

    def decision(current: str) -> str:
        return hold_against(ranking, Policy(current=current, max_regret=0.01)).decision

    assert [decision(name) for name in ("a", "a again", "b")] == [PASS, PASS, FAIL]


def test_only_the_same_images_are_compared_one_by_one(tmp_path: Path) -> None:
    """Of as many other images each by itself says nothing about the difference."""
    right = (np.random.default_rng(0).random(1000) < 0.9).astype(float)
    path = stored(tmp_path / "base", other_ranking(), right)
    same = compare_with_stored(make_ranking(), arrays_of(right), path)
    others = {**arrays_of(right), "evaluated": np.arange(1000) + 1}
    other = compare_with_stored(make_ranking(), others, path)
    # No image differs in a thousand: z**2 / (n + z**2) to either side.
    assert same.high - same.low == pytest.approx(2 * 3.84 / 1003.84, rel=0.1)
    # Both have two points to either side.
    assert other.high - other.low == pytest.approx(0.04 * np.sqrt(2))


def test_the_accuracy_of_the_best_is_that_after_training_or_of_a_score_that_is_one() -> None:
    ranking = make_ranking()
    assert best_accuracy(ranking).value == 0.90
    names = list(COURSE)
    standing = next(s for s in raced().standings if s.name == names[0])
    trained = dataclasses.replace(ranking["new"], confirmed={"fe": standing})
    checkpoints = (trained, ranking["old"])
    # As a file of an older version, which does not say what to expect on new images.
    ranking = dataclasses.replace(ranking, checkpoints=checkpoints, expected=None)
    measured = best_accuracy(ranking)
    assert measured.by == "confirmed"
    assert measured.low <= COURSE[names[0]][90] <= measured.high
    assert measured.high < 0.95 and measured.high - measured.low != pytest.approx(0.04)
    # What it is expected to reach on other images counts, where that is known.
    expected = Measured(0.7, 0.6, 0.8, by="confirmed")
    assert best_accuracy(dataclasses.replace(ranking, expected=expected)) == expected
    # Of another goal it says nothing about this one.
    assert best_accuracy(dataclasses.replace(ranking, goal="ft")).by == "linear_probe"
    nats = ranking["new"].scores["linear_probe"]
    row = dataclasses.replace(ranking["new"], confirmed=None, scores={"linear_probe_loglik": nats})
    ranking = dataclasses.replace(ranking, checkpoints=(row,), score="linear_probe_loglik")
    assert best_accuracy(ranking) is None


def test_nobody_is_close_enough_to_a_best_at_chance() -> None:
    ranking = make_ranking()
    value = ranking["new"].scores["linear_probe"]
    value = dataclasses.replace(value, details={"at_chance": True})
    best = dataclasses.replace(ranking["new"], scores={"linear_probe": value})
    changes = {"checkpoints": (best, ranking["old"]), "doubts": ("it tells nothing",)}
    for current in ("new", "old"):
        policy = Policy(current=current, max_regret=0.05)
        assert hold_against(ranking, policy).decision == PASS
        verdict = hold_against(dataclasses.replace(ranking, **changes), policy)
        assert verdict.decision == CANNOT_TELL


# ---------------------------------------------------------------------- checkpoints and features


def test_a_digest_tells_names_types_shapes_and_values_apart(tmp_path: Path) -> None:
    zeros = torch.zeros(4)
    states = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.int()},
        {"a": zeros.view(2, 2)},
        {"a": zeros.view(4, 1)},
        {"a": torch.tensor([0.0, 0.0, 0.0, 1.0])},
        {"a": zeros, "b": zeros},
        {"a": torch.zeros(8)},
        {"b": zeros, "a": zeros},
    ]
    for i, state in enumerate(states):
        torch.save(state, tmp_path / f"{i}.pth")
    digests = [c.digest for c in sorted(scan_checkpoints(tmp_path), key=lambda c: c.name)]
    assert len(set(digests)) == len(states) - 1
    assert digests[8] == digests[6]


def test_statistics_of_batch_norm_are_no_parameters(tmp_path: Path) -> None:
    state = {"conv.weight": torch.ones(2, 3), "bn.running_mean": torch.ones(2)}
    state |= {"bn.running_var": torch.ones(2), "bn.num_batches_tracked": torch.tensor(3)}
    torch.save(state, tmp_path / "a.pth")
    (found,) = scan_checkpoints(tmp_path)
    assert found.n_parameters == 6


def test_steps_order_what_one_epoch_wrote_and_names_where_some_epoch_is_unknown() -> None:
    def made(name: str, epoch: float | None, step: int | None) -> Checkpoint:
        return Checkpoint(name, Path(name), epoch=epoch, step=step)

    def order(*checkpoints: Checkpoint) -> list[str]:
        return [c.name for c in in_training_order(checkpoints)]

    assert order(made("a", 1, 900), made("b", 1, 20), made("c", 0, 5000)) == ["c", "b", "a"]
    assert order(made("a", None, 900), made("b", None, 20), made("c", 1, 50)) == ["b", "c", "a"]
    # Neither is there for all of them: the names decide.
    assert order(made("a9", 5, None), made("a10", None, 1), made("a1", 7, None)) == [
        "a1",
        "a9",
        "a10",
    ]


def test_a_features_key_is_made_of_all_that_determines_it(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = Preprocessing((3, 32, 32), "bicubic", (0.5,) * 3, (0.25,) * 3, 0.9)

    def key(digest: str = "d", images: str = "i", precision: str = "float32", **changes) -> str:
        about = {"name": "m", "position": "p", "preprocessing": preprocessing, **changes}
        layer = about.pop("layer", "last")
        encoder = ImageEncoder(module=None, head=(), **about)
        vars(encoder)["stages"] = ()  # without a module there are none to look for
        return feature_key(digest, images, encoder, precision, layer)

    keys = [
        key(),
        key(digest="other"),
        key(images="other"),
        key(precision="bfloat16"),
        key(name="other"),
        key(position="other"),
        key(layer="other"),
    ]
    for changes in (
        {"input_size": (3, 64, 64)},
        {"interpolation": "bilinear"},
        {"mean": (0.4,) * 3},
        {"std": (0.2,) * 3},
        {"crop_pct": 1.0},
    ):
        keys.append(key(preprocessing=dataclasses.replace(preprocessing, **changes)))
    assert key() == keys[0]
    monkeypatch.setattr("ckptsel.features.extraction.FEATURES_VERSION", 10**6)
    keys.append(key())
    assert len(set(keys)) == len(keys)
