"""What must not depend on what: held-out images on nothing fitted, keys on all that they stand for,
intervals on all that is random. Each test fails where one line of the package lets go of that."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ckptsel
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.confirmation.learning_rate import choose_rate
from ckptsel.confirmation.protocols import FE, FT
from ckptsel.confirmation.race import race
from ckptsel.confirmation.reorder import _behind_best
from ckptsel.confirmation.runs import Task, Transfer
from ckptsel.features.store import Cache
from ckptsel.ranking import rank as ranking_module
from ckptsel.ranking.rank import _score_key
from ckptsel.ranking.uncertainty import bootstrap_means, find_tie_set, seed_and_image_means
from ckptsel.ranking.workspace import open_workspace
from ckptsel.scores import ScoreInputs, known_scores
from ckptsel.settings.options import RankSettings
from ckptsel.target.splits import plan_cross_validation, plan_holdout, plan_validation

# ------------------------------------------------------------------- intervals and tie sets


@pytest.mark.parametrize(
    ("n_errors", "least", "most"),
    [
        (3, 0.87, 0.945),  # normal theory: 91 %; at a level of 99.5 % it were 66, at 90 % 96
        (0, 0.03, 0.075),  # 5 %; at a level of 99.5 % it were a half
    ],
)
def test_how_often_the_tie_set_leaves_out_one_so_many_standard_errors_behind(
    n_errors: float, least: float, most: float
) -> None:
    random = np.random.default_rng(0)
    n_trials, n_images, left_out = 500, 100, 0
    for trial in range(n_trials):
        behind = random.standard_normal(n_images) + n_errors / np.sqrt(n_images)
        easy = 3 * random.standard_normal(n_images)
        per_image = np.stack([easy, easy - behind])
        resampled = bootstrap_means(per_image, 200, seed=trial)
        left_out += not find_tie_set(per_image.mean(1), resampled)[1]
    assert least <= left_out / n_trials <= most


def half_width(resampled: np.ndarray) -> float:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(high - low) / 2


def made_runs(accuracy: np.ndarray, n_images: int = 500) -> np.ndarray:
    """Correctness (n_candidates, n_seeds, n_images) with these accuracies (n_candidates, n_seeds);
    the images are nested, so they add little to the intervals."""
    return (np.arange(n_images) < n_images * accuracy[:, :, None]).astype(float)


def test_a_seed_that_is_good_for_all_widens_every_interval_but_no_difference() -> None:
    by_seed = np.array([0.7, 0.8, 0.9])
    shared = np.tile(by_seed, (4, 1))
    calm, moved = (
        seed_and_image_means(made_runs(accuracy)) for accuracy in (np.full((4, 3), 0.8), shared)
    )
    # Student's t with 2 degrees of freedom reaches 4.30 standard errors of a mean of three.
    expected = 4.303 * by_seed.std(ddof=1) / np.sqrt(3)
    for candidate in range(4):
        assert half_width(calm[candidate]) < 0.05
        assert half_width(moved[candidate]) == pytest.approx(expected, rel=0.15)
    assert half_width(moved[0] - moved[1]) == pytest.approx(0, abs=1e-12)


def test_seeds_that_are_good_for_one_candidate_widen_the_differences() -> None:
    """Each candidate's own part sums to zero over candidates and over seeds: none is shared."""
    own = 0.05 * np.array([[1, -1, 0], [-1, 1, 0], [1, 0, -1], [-1, 0, 1]])
    resampled = seed_and_image_means(made_runs(0.8 + own))
    error = np.sqrt((own**2).sum() / 6 / 3)
    # Student's t with (4 - 1) (3 - 1) degrees of freedom reaches 2.45 standard errors.
    expected = 2.447 * error * np.sqrt(2)
    for other in (1, 2, 3):
        assert half_width(resampled[0] - resampled[other]) == pytest.approx(expected, rel=0.15)


# --------------------------------------------------------- nothing fitted saw what it is read on


def noisy_classes(n: int = 120, d: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Features off the origin, with signal in a wide direction and in a narrow one, and labels."""
    random = np.random.default_rng(0)
    labels = np.arange(n) % 3
    features = random.standard_normal((n, d)) * np.linspace(3, 0.3, d) + 0.5
    features[:, 0] += 2 * labels
    features[:, -1] += 0.5 * labels
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
    for plan in (plan_validation(80, 40), plan_holdout(labels, 0.3, seed=0)):
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


def test_the_paper_probe_is_drawn_by_the_seed_and_the_main_part_by_the_energy() -> None:
    features, labels = noisy_classes()
    plan = plan_validation(80, 40)
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
    version = ranking_module.SCORES_VERSION
    monkeypatch.setattr(ranking_module, "SCORES_VERSION", version + 1)
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
SHORT_FT = dataclasses.replace(FT, n_steps=16, batch_size=8, augment=("crop",))


def open_task(trajectory: Path, images: Path, protocol, cache: Path) -> Task:
    found = scan_checkpoints(trajectory)
    workspace = open_workspace(RankSettings(), found, str(images), quiet=True)
    fitted, held = workspace.target.evaluation.folds[0]
    return Task(protocol, workspace, Cache(cache), fitted, held)


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
    checkpoint, other, _ = scan_checkpoints(trajectory)

    def key(checkpoint=checkpoint, seed: int = 0, lr: float = 0.1, **changes) -> str:
        return dataclasses.replace(task, **changes).key(checkpoint, seed, lr)

    labels = (task.workspace.target.labels + 1) % 3
    target = dataclasses.replace(task.workspace.target, labels=labels)
    keys = [
        key(),
        key(other),
        key(seed=1),
        key(lr=0.2),
        key(fitted=task.fitted[1:]),
        key(held=task.held[1:]),
        key(workspace=dataclasses.replace(task.workspace, target=target)),
    ]
    for field in dataclasses.fields(SHORT_FE):
        if field.name != "lrs":  # those to choose from; a run has one
            value = another(getattr(SHORT_FE, field.name))
            protocol = dataclasses.replace(SHORT_FE, **{field.name: value})
            keys.append(key(protocol=protocol))
    assert key() == keys[0]
    assert len(set(keys)) == len(keys)


def test_another_rate_and_another_seed_give_curves_of_their_own(
    trajectory: Path, images: Path, tmp_path: Path
) -> None:
    task = open_task(trajectory, images, SHORT_FE, tmp_path / "cache")
    fresh = dataclasses.replace(task, cache=Cache(tmp_path / "fresh"))
    checkpoint = scan_checkpoints(trajectory)[0]

    def curve(task: Task, seed: int, lr: float) -> list:
        run = Transfer(task, checkpoint, seed, lr)
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
        sweeps.append(choose_rate(task, scan_checkpoints(trajectory), 0, quiet=True))
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
        run = Transfer(task, scan_checkpoints(trajectory)[0], 0, 0.05)
        predictions.append(run.advance(protocol.n_steps))
        losses.append([point.train_loss for point in run.record.points])
    held = task.workspace.target.image_sets[1]
    kept = np.array([int(Path(held.locate(i)).stem) < 5 for i in range(len(held))])
    assert kept.sum() == 15
    assert losses[0] == losses[1]
    assert np.array_equal(predictions[0][kept], predictions[1][kept])
    assert not np.array_equal(predictions[0][~kept], predictions[1][~kept])


# ----------------------------------------------------------------------- the race and its order

RUNGS = (10, 30, 90)
COURSE = {
    "winner": {10: 0.50, 30: 0.80, 90: 0.90},
    "second": {10: 0.50, 30: 0.80, 90: 0.89},
    "leaves": {10: 0.49, 30: 0.60},
    "diverges": {10: 0.48, 30: 0.79},
}
N_IMAGES = 1000


def raced():
    """One that goes after the second rung, one that diverges after it, and two that go on."""
    ease = np.random.default_rng(0).permutation(N_IMAGES) / N_IMAGES
    noise = np.random.default_rng(1).random(N_IMAGES)

    def advance(name: str, seed: int, step: int) -> np.ndarray | None:
        accuracy = COURSE[name].get(step)
        if accuracy is None:
            return None
        # Before the end what a candidate gets right is its own, so that a point tells nobody apart.
        mixed = ease if step == 90 else np.roll(noise, 100 * list(COURSE).index(name))
        return np.argsort(np.argsort(mixed, kind="stable")) < accuracy * N_IMAGES

    ended = race(list(COURSE), (0, 1), RUNGS, advance, tolerance=0)
    assert [step for step, there in ended.correct.items() if "leaves" in there] == [10, 30]
    assert ended.winner == "winner"
    return ended


def test_a_loser_is_compared_at_the_last_step_that_both_reached() -> None:
    ended = raced()
    scored = {f"{name}/linear_probe/per_image": np.full(50, i) for i, name in enumerate(COURSE)}
    scored["untried/linear_probe/per_image"] = np.full(50, -2.0)
    ranking = SimpleNamespace(score="linear_probe", settings={"n_resamples": 100, "seed": 0})

    def behind(name: str):
        return _behind_best(name, ended, ranking, scored)

    assert behind("winner").value == 0
    assert behind("second").value == pytest.approx(0.90 - 0.89)
    assert behind("leaves").value == pytest.approx(0.80 - 0.60)
    assert behind("diverges").value == pytest.approx(0.80 - 0.79)
    # Nothing but the score is there to compare with one that did not race.
    assert behind("untried").value == pytest.approx(2.0)
    assert {behind(name).by for name in COURSE} == {"confirmed"}
    assert behind("untried").by == "linear_probe"
