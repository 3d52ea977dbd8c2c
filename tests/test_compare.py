"""Two rankings side by side: who is who, what moved, whether by more than chance; the command line."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckptsel.comparison.changes import changes_of, changes_of_estimates
from ckptsel.comparison.compare import INDEPENDENT, PAIRED, compare
from ckptsel.comparison.kept import kept_values
from ckptsel.comparison.matching import match
from ckptsel.errors import InputError
from ckptsel.ranking.judgement import Readings
from ckptsel.ranking.order import order_rows
from ckptsel.results.confirmation import CONFIRMED
from ckptsel.results.estimate import Estimate
from ckptsel.results.files import write_ranking
from ckptsel.results.ranking import Ranking
from ckptsel.results.scores import ScoreResult
from tests.conftest import ABOUT
from tests.test_ranking import make_row

N = 1000


def made(right: dict[str, np.ndarray], **changes: object) -> tuple[Ranking, dict[str, np.ndarray]]:
    """A ranking of checkpoints by which of N images each has right, and its arrays."""
    results = {
        name: {"linear_probe": ScoreResult(float(values.mean()), values.astype(float))}
        for name, values in right.items()
    }
    rows = [
        dataclasses.replace(make_row(name, i), digest=f"digest of {name}")
        for i, name in enumerate(right)
    ]
    units = {"linear_probe": "accuracy"}
    ordered = order_rows(rows, results, units, "linear_probe", 500, 0)
    ranking = Ranking(
        goal="fe",
        score="linear_probe",
        checkpoints=tuple(ordered.rows),
        best=ordered.rows[0].name,
        tie_set=tuple(row.name for row in ordered.rows if row.in_tie_set),
        references=ordered.references,
        expected=ordered.expected,
        notes=(),
        **ABOUT,
        environment={},
        time_s={},
        created="now",
        version="0",
        units=units,
    )
    arrays = {
        f"{name}/linear_probe/per_image": values.astype(float) for name, values in right.items()
    }
    arrays["evaluated"] = np.arange(N)
    return dataclasses.replace(ranking, **changes), arrays


def shares(**accuracy: float) -> dict[str, np.ndarray]:
    """So many of the images right, the easiest first: candidates then differ on few images."""
    return {name: np.arange(N) < round(share * N) for name, share in accuracy.items()}


FIRST = shares(a=0.90, b=0.87, c=0.80)
SECOND = shares(a=0.85, b=0.88, c=0.81)


def test_candidates_are_matched_by_digest_then_by_name() -> None:
    one, _ = made(shares(a=0.9, b=0.8, c=0.7))
    two, _ = made(shares(x=0.9, b=0.8, d=0.7))
    digests = {"x": "digest of a", "b": "another"}
    rows = tuple(dataclasses.replace(r, digest=digests.get(r.name, r.digest)) for r in two)
    matched = match(one, dataclasses.replace(two, checkpoints=rows))
    assert [(p.first.name, p.second.name, p.by) for p in matched.pairs] == [
        ("a", "x", "digest"),
        ("b", "b", "name"),
    ]
    assert [row.name for row in matched.only_first] == ["c"]
    assert [row.name for row in matched.only_second] == ["d"]


def test_a_digest_wins_over_a_name() -> None:
    """Files that were renamed in a circle are still themselves."""
    one, _ = made(shares(a=0.9, b=0.8))
    two, _ = made(shares(b=0.9, a=0.8))
    swapped = {"a": "digest of b", "b": "digest of a"}
    rows = tuple(dataclasses.replace(r, digest=swapped[r.name]) for r in two)
    matched = match(one, dataclasses.replace(two, checkpoints=rows))
    assert {(p.first.name, p.second.name, p.by) for p in matched.pairs} == {
        ("a", "b", "digest"),
        ("b", "a", "digest"),
    }


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(InputError, match="no checkpoint in common"):
        compare(*made(shares(a=0.9)), *made(shares(b=0.9)))


def test_the_same_images_are_compared_one_by_one() -> None:
    """`a` loses fifty images of a thousand and gains none: five points, give or take little."""
    paired = compare(*made(FIRST), *made(SECOND))
    change = paired.moves[0].change
    assert paired.how == PAIRED
    assert change.value == pytest.approx(-0.05)
    # Fifty discordant images, three changes at once: 2.4 standard errors of sqrt(50) / 1000.
    assert change.high - change.low == pytest.approx(2 * 2.4 * np.sqrt(50) / N, rel=0.1)
    assert [move.moved for move in paired.moves] == ["down", "up", "up"]


@pytest.mark.parametrize("other", ["evaluated", "fingerprint"])
def test_other_images_are_not_paired(other: str) -> None:
    ranking, arrays = made(SECOND)
    if other == "evaluated":
        arrays["evaluated"] = arrays["evaluated"] + 1
    else:
        target = {**ranking.target, "fingerprint": "0" * 64}
        ranking = dataclasses.replace(ranking, target=target)
    compared = compare(*made(FIRST), ranking, arrays)
    change = compared.moves[0].change
    assert compared.how == INDEPENDENT
    errors = np.sqrt(0.9 * 0.1 / N + 0.85 * 0.15 / N)
    assert change.high - change.low == pytest.approx(2 * 2.3 * errors, rel=0.12)


def test_an_easier_target_moves_nobody_beside_the_others() -> None:
    harder = shares(a=0.50, b=0.47, c=0.40)
    ranking, arrays = made(harder)
    compared = compare(*made(FIRST), ranking, {**arrays, "evaluated": arrays["evaluated"] + N})
    assert all(move.change.high < -0.3 for move in compared.moves)
    assert [move.moved for move in compared.moves] == ["", "", ""]


def test_without_predictions_both_intervals_count() -> None:
    one, two = Estimate(0.9, 0.88, 0.92), Estimate(0.8, 0.77, 0.83)
    (alone,) = changes_of_estimates([one], [two])
    assert alone.low == pytest.approx(-0.1 - np.hypot(0.03, 0.02))
    # Of two at once each interval is wider: 2.24 standard errors in place of 1.96.
    both = changes_of_estimates([one, one], [two, two])
    assert (both[0].value - both[0].low) / (alone.value - alone.low) == pytest.approx(
        1.14, abs=0.01
    )
    compared = compare(made(FIRST)[0], {}, made(SECOND)[0], {})
    assert compared.how == INDEPENDENT
    assert all(move.change and move.beside_others is None for move in compared.moves)


@pytest.mark.parametrize("paired", [True, False])
def test_chance_alone_seldom_moves_any(paired: bool) -> None:
    """Of 200 comparisons in which nothing changed, about ten may find a change anywhere."""
    random = np.random.default_rng(0)
    found = np.zeros(2)
    for _ in range(200):
        hard = random.random(300)
        level = np.linspace(0.7, 0.9, 6)[:, None]
        draws = [
            (hard if paired else random.random(300)) + 0.2 * random.standard_normal((6, 300))
            < level
            for _ in range(2)
        ]
        readings = [Readings(draw[:, None].astype(float)) for draw in draws]
        changes = changes_of(*readings, paired=paired)
        for i, kind in enumerate((changes.of_value, changes.beside_others)):
            found[i] += any(each.low > 0 or each.high < 0 for each in kind)
    assert found.max() <= 20


def test_seeds_of_training_are_not_taken_for_the_same() -> None:
    """Two seeds that differ by ten points: a change of five is no more than chance."""

    def read(*accuracy: float) -> Readings:
        by_seed = np.arange(500) < 500 * np.array(accuracy)[:, None]
        return Readings(np.stack([by_seed, by_seed]).astype(float))

    one = changes_of(read(0.85), read(0.90), paired=True).of_value[0]
    two = changes_of(read(0.80, 0.90), read(0.85, 0.95), paired=True).of_value[0]
    assert one.value == pytest.approx(two.value) == pytest.approx(0.05)
    assert one.low > 0 and two.low < -0.1


def test_of_confirmed_accuracy_what_counts_is_what_each_seed_had_right() -> None:
    ranking, arrays = made(FIRST)
    labels = np.arange(N) % 3
    predicted = np.stack([labels, np.zeros(N, int)])
    arrays |= {"confirmed/fe/labels": labels, "confirmed/fe/a/90": predicted}
    kept = kept_values(ranking, arrays, CONFIRMED, 90)
    assert list(kept.values) == ["a"] and kept.n_seeds("a") == 2
    assert kept.values["a"].mean(axis=1) == pytest.approx([1, 1 / 3], abs=0.001)
    assert kept_values(ranking, arrays, CONFIRMED, 30) is None


def test_the_order_says_how_many_independent_points_it_rests_on() -> None:
    names = "abcdefgh"
    trend = {name: 0.6 + 0.03 * i for i, name in enumerate(names)}
    compared = compare(
        *made(shares(**trend)), *made(shares(**{k: v + 0.05 for k, v in trend.items()}))
    )
    tau = compared.order.kendall_tau
    assert compared.order.n == 8 and tau.value == pytest.approx(1)
    assert compared.order.n_effective < 4 and tau.bounds == (-1, 1)


# ---- the command line ----------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name, right in (("one", FIRST), ("two", SECOND)):
        ranking, arrays = made(right)
        settings = {**ranking.settings, "seed": len(name) + (name == "two")}
        write_ranking(tmp_path / name, dataclasses.replace(ranking, settings=settings), arrays)
    return tmp_path / "one", tmp_path / "two"


def test_the_best_of_one_in_the_other_stands_on_top(run, folders) -> None:
    code, out, err = run("compare", *folders)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith("the best of A, a, is 2nd of 3 in B, 3.0 points [2.")
    assert lines[0].endswith("behind its best, b.")
    assert lines[1].startswith("the best of B, b, is 2nd of 3 in A, 3.0 points [2.")
    assert "moved by more than chance in linear_probe beside the others: up: b, c; down: a" in out
    assert "differences are paired: both were read on the same images" in out
    assert "made otherwise: seed 3 -> 4." in out
    assert any(line.split()[:4] == ["a", "1", "->", "2"] for line in lines)


def test_formats(run, folders) -> None:
    said = json.loads(run("compare", *folders, "-f", "json")[1])
    assert said["how"] == "paired" and said["by"] == "linear_probe"
    assert [c["moved"] for c in said["checkpoints"]] == ["down", "up", "up"]
    assert said["checkpoints"][0]["change"]["value"] == pytest.approx(-0.05)
    assert said["differs"] == [{"what": "seed", "first": "3", "second": "4"}]
    rows = list(csv.DictReader(run("compare", *folders, "-f", "csv")[1].splitlines()))
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert (rows[0]["rank"], rows[0]["other_rank"], rows[0]["matched_by"]) == ("1", "2", "digest")
    assert float(rows[0]["change_high"]) < 0
    assert "| a | 1 -> 2 |" in run("compare", *folders, "-f", "md")[1]


def test_a_stored_json_does(run, folders, tmp_path: Path) -> None:
    shutil.copy(folders[1] / "ranking.json", tmp_path / "baseline.json")
    code, out, _ = run("compare", folders[0], tmp_path / "baseline.json")
    assert code == 0
    assert "what each image gave was not kept beside both" in out and "beside others" not in out


def test_what_is_not_there(run, folders, monkeypatch) -> None:
    monkeypatch.chdir(folders[0].parent)
    for missing, folder in (("nowhere", "nowhere"), ("there/ranking.json", "there")):
        code, _, err = run("compare", folders[0], missing)
        assert code == 3
        assert err == (
            f"error: {folder}/ranking.json does not exist: {folder} is no folder of a ranking. Make one "
            f"with: ckptsel rank CHECKPOINTS --data DATA --out {folder}.\n"
        )


def test_what_is_in_one_only_is_said(run, folders, tmp_path: Path) -> None:
    ranking, arrays = made(shares(b=0.9, d=0.7))
    rows = tuple(dataclasses.replace(row, digest="new" + row.name) for row in ranking)
    write_ranking(tmp_path / "three", dataclasses.replace(ranking, checkpoints=rows), arrays)
    code, out, _ = run("compare", folders[0], tmp_path / "three")
    assert code == 0
    assert "the best of A, a, is not in B; the best of B is b." in out
    assert "matched by name, since the digests of their tensors differ: b." in out
    assert "only in A: a, c." in out and "only in B: d." in out


def test_a_real_pair(run, trajectory: Path, images: Path, tmp_path: Path) -> None:
    for energy in (0.8, 0.7):
        options = (
            "--scores",
            "linear_probe",
            "--energy",
            energy,
            "-o",
            tmp_path / str(energy),
            "-q",
        )
        assert run("rank", trajectory, "-d", images, *options)[0] == 0
    code, out, _ = run("compare", tmp_path / "0.8", tmp_path / "0.7")
    assert code == 0 and "differences are paired" in out
    assert "made otherwise: energy 0.8 -> 0.7." in out


def test_no_torch(folders) -> None:
    code = (
        "import sys\nfrom ckptsel.cli import main\n"
        f"sys.argv = {['ckptsel', 'compare', *map(str, folders)]!r}\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "heavy = ('torch', 'timm', 'altair', 'vl_convert', 'pandas', 'pyarrow', 'jinja2')\n"
        "print('heavy:', [m for m in heavy if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "heavy: []", ended.stderr
