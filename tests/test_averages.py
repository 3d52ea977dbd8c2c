"""Averages of neighbouring checkpoints: which there are, what they hold, and every command on them."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ckptsel
from ckptsel.checkpoints.averages import average_of, with_averages
from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.weights import mean_of, read_weights
from ckptsel.comparison.compare import compare
from ckptsel.errors import CheckpointError, InputError
from ckptsel.export.card import card_text
from ckptsel.gating.github import step_outputs
from ckptsel.ranking import rank as ranking_module
from ckptsel.ranking.order import layer_references, reference_rows
from ckptsel.ranking.ray_engine import _with_paths
from ckptsel.ranking.reopen import checkpoint_of
from ckptsel.report.charts import draw
from ckptsel.report.command import rank_command
from ckptsel.report.explanation import explain
from ckptsel.report.inspection import checkpoints_text
from ckptsel.report.page import page
from ckptsel.report.series import (
    average_records,
    choose_axis,
    layer_records,
    trajectory_records,
)
from ckptsel.results.estimate import Measured
from ckptsel.results.files import read_ranking
from ckptsel.results.ranking import Ranking, Reference
from ckptsel.results.summary import summary
from tests.conftest import save_checkpoint, save_images


def made(name: str, **fields) -> Checkpoint:
    known = {"digest": name * 64, "layout": "l", "weights_key": "k", **fields}
    return Checkpoint(name, Path(name), **known)


def names(checkpoints: list[Checkpoint]) -> list[str]:
    return [c.name for c in checkpoints]


def averages(checkpoints: list[Checkpoint], *sizes: int, across: bool = False) -> list[str]:
    found = with_averages(checkpoints, sizes, across).checkpoints
    return [f"{''.join(names(c.parts))}" for c in found if c.parts]


def test_neighbours_of_each_size_behind_their_last() -> None:
    found = with_averages([made(name) for name in "abc"], (3, 2, 2))
    assert names(found.checkpoints) == ["a", "b", "b~mean2", "c", "c~mean2", "c~mean3"]
    assert averages([made(name) for name in "abc"], 2, 3) == ["ab", "bc", "abc"]
    assert len({c.digest for c in found.checkpoints}) == 6


def test_an_average_is_at_the_epoch_of_its_last_and_has_no_source_accuracy() -> None:
    parts = [made("a", epoch=1, source_accuracy=0.1), made("b", epoch=2, source_accuracy=0.2)]
    mean = average_of(parts)
    assert (mean.epoch, mean.source_accuracy, mean.format) == (2, None, "average")
    assert average_of(parts[::-1]).digest != mean.digest  # whole numbers are the last's


def test_failed_ones_copies_and_other_networks_are_left_out() -> None:
    failed, copy = made("x", problem="damaged"), made("y", copy_of="a")
    assert averages([made("a"), failed, copy, made("b"), made("c")], 2) == ["ab", "bc"]
    assert averages([made("a"), made("b", layout="other"), made("c")], 2) == []
    assert averages([made("a"), made("b", weights_key="ema"), made("c", weights_key="ema")], 2) == [
        "bc"
    ]


def test_a_size_that_there_are_too_few_for_is_said() -> None:
    found = with_averages([made("a", learning_rate=1), made("b", learning_rate=1)], (2, 5))
    assert found.notes == ["--average 5: there are no 5 neighbours that can be averaged"]


def test_a_file_may_not_have_the_name_of_an_average() -> None:
    with pytest.raises(InputError, match="^b~mean2 is a file, and would be the name of an average"):
        with_averages([made("a"), made("b"), made("b~mean2")], (2,))


@pytest.mark.parametrize(
    ("rates", "wanted"),
    [
        ((0.1, 0.1, 0.1, 0.01, 0.01, 0.01), ["ab", "bc", "ef"]),  # d may hold weights of before
        ((0.4, 0.2, 0.2, 0.2), ["cd"]),  # half is a drop
        ((1.0, 0.9, 0.7, 0.5, 0.3), ["ab", "bc", "cd", "de"]),  # linear
        ((0.1, None, 0.01, None, None), ["ab", "de"]),  # fell since the last that is known
        ((0.01, 0.1, 0.1), ["ab", "bc"]),  # warming up
        ((0.0, 0.0, 0.1), ["ab", "bc"]),
    ],
)
def test_never_across_a_drop_of_the_learning_rate(rates, wanted) -> None:
    checkpoints = [made(n, learning_rate=r) for n, r in zip("abcdef", rates, strict=False)]
    assert averages(checkpoints, 2) == wanted
    assert len(averages(checkpoints, 2, across=True)) == len(rates) - 1


def test_what_is_left_out_or_not_known_of_drops_is_said() -> None:
    checkpoints = [made("a", learning_rate=0.1), made("b", learning_rate=0.01), made("c")]
    left_out, unknown = with_averages(checkpoints, (2,)).notes[1:]  # the first: none is left
    assert left_out == (
        "2 averages across a drop of the learning rate, which fell to half or less by b, are left out: "
        "--average-across-drops takes them in"
    )
    assert unknown.startswith("no learning rate is recorded in c: ")
    assert with_averages(checkpoints, (2,), across_drops=True).notes == []


def test_the_mean_is_that_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    types = {"w": torch.float32, "h": torch.float16, "b": torch.bfloat16, "z": torch.complex64}
    each = [
        {
            **{name: torch.randn(3, 2).to(kind) for name, kind in types.items()},
            "n": torch.tensor(10 + i),
            "mask": torch.tensor([i == 2, True]),
        }
        for i in range(3)
    ]
    mean = mean_of(each)
    for name, kind in types.items():
        assert mean[name].dtype == kind
        wide = np.complex128 if name == "z" else np.float64
        sums = np.zeros((3, 2), wide)
        for tensors in each:
            sums += tensors[name].to(torch.complex128 if name == "z" else torch.float64).numpy()
        assert torch.equal(mean[name], torch.from_numpy(sums / 3).to(kind))
    assert mean["n"] == 12 and torch.equal(mean["mask"], torch.tensor([True, True]))
    with pytest.raises(CheckpointError, match="its parts are of different networks"):
        mean_of([{"w": torch.ones(2)}, {"w": torch.ones(2, 1)}])


@pytest.fixture
def averaged(run, trajectory: Path, images: Path, tmp_path: Path) -> Path:
    """The folder of a ranking with averages."""
    out = tmp_path / "averaged"
    options = ("--scores", "linear_probe", "--average", "2,3,5", "-o", out, "-q")
    code, _, err = run("rank", trajectory, "-d", images, *options)
    assert (code, err) == (0, "")
    return out


def ranking_in(folder: Path) -> Ranking:
    return Ranking.from_dict(json.loads((folder / "ranking.json").read_text()))


MEANS = ["checkpoint-005~mean2", "checkpoint-010~mean2", "checkpoint-010~mean3"]


def test_averages_are_candidates_of_the_same_ranking(averaged: Path) -> None:
    ranking = ranking_in(averaged)
    means = {row.name: row for row in ranking if row.average_of}
    assert sorted(means) == MEANS and len(ranking) == 6
    assert all(row.scores["linear_probe"].low is not None for row in ranking)
    assert sum(row.p_best or 0 for row in ranking) == pytest.approx(1, abs=0.01)
    of_three = means["checkpoint-010~mean3"]
    assert (of_three.order, of_three.epoch, of_three.path, of_three.format) == (
        2,
        10,
        "",
        "average",
    )
    files = ["checkpoint-001", "checkpoint-005", "checkpoint-010"]
    assert [part.name for part in of_three.average_of] == files
    assert [part.digest for part in of_three.average_of] == [ranking[n].digest for n in files]
    assert ranking.references["last"].name == "checkpoint-010"
    assert ranking.references["source_accuracy"].name == "checkpoint-005"
    assert not ranking[ranking.references["checkpoint"].name].average_of
    assert ranking[ranking.references["average"].name].average_of
    assert "--average 5: there are no 5 neighbours that can be averaged" in ranking.notes
    assert any("no learning rate is recorded in 3 files" in note for note in ranking.notes)
    assert not any("no trajectory" in note for note in ranking.notes)
    assert "average_of" in (averaged / "ranking.csv").read_text().splitlines()[0]
    assert "Hollow: averages" in (averaged / "report.html").read_text()


def test_the_best_of_the_others_is_in_the_answer(averaged: Path) -> None:
    ranking = ranking_in(averaged)
    ahead = Measured(0.02, 0.01, 0.03, by="linear_probe")
    names = {"last": "checkpoint-010", "checkpoint": "checkpoint-005", "average": MEANS[0]}
    references = {kind: Reference(name, ahead) for kind, name in names.items()}
    made = dataclasses.replace(ranking, references=references)
    for best, said in (
        (MEANS[0], "of single checkpoints the best is checkpoint-005, 2.0 points behind"),
        ("checkpoint-005", f"of averages the best is {MEANS[0]}, 2.0 points behind"),
    ):
        text = summary(dataclasses.replace(made, best=best))
        assert said in text and text.count("the best is") == 1
    # What is said of the last checkpoint is not said twice.
    made = dataclasses.replace(ranking, references={**references, "checkpoint": references["last"]})
    assert "the best is" not in summary(dataclasses.replace(made, best=MEANS[0]))


def test_references_are_no_averages(averaged: Path) -> None:
    rows = sorted(ranking_in(averaged), key=lambda row: not row.average_of)
    assert reference_rows(rows)["last"].name == "checkpoint-010"
    alone = [row for row in rows if row.average_of]
    assert reference_rows(alone)["last"].name in MEANS  # all else failed


def test_checkpoints_have_the_numbers_that_they_have_alone(
    averaged: Path, trajectory: Path, images: Path
) -> None:
    with_means, alone = ranking_in(averaged), ckptsel.rank(trajectory, images)
    for row in alone:
        same = with_means[row.name]
        assert same.order == row.order
        assert same.scores["linear_probe"].value == row.scores["linear_probe"].value


def test_an_average_has_the_features_of_the_mean(
    averaged: Path, run, images: Path, tmp_path: Path
) -> None:
    """Its score is that of a file that holds the mean."""
    files = sorted((tmp_path / "ckpts").iterdir())
    each = [load_file(path) for path in files]
    mean = {
        name: torch.stack([t[name].double() for t in each]).mean(0).to(each[-1][name].dtype)
        if each[-1][name].is_floating_point()
        else each[-1][name]
        for name in each[-1]
    }
    metadata = {"format": "ckptsel", "arch": ranking_in(averaged).model["name"], "epoch": "10"}
    (tmp_path / "mean").mkdir()
    save_file(mean, tmp_path / "mean" / "m.safetensors", metadata)
    (row,) = ckptsel.rank(tmp_path / "mean", images)
    found = ranking_in(averaged)["checkpoint-010~mean3"].scores["linear_probe"]
    assert found.value == row.scores["linear_probe"].value


def test_a_drop_that_files_record_ends_averages(run, trajectory: Path, images: Path) -> None:
    for path, rate in zip(sorted(trajectory.iterdir()), ("0.1", "0.1", "0.01"), strict=True):
        with safe_open(path, "pt") as opened:
            metadata = {**opened.metadata(), "lr": rate}
        save_file(load_file(path), path, metadata)
    options = ("--scores", "linear_probe", "--average", "2,3", "-f", "json", "-q")
    code, out, _ = run("rank", trajectory, "-d", images, *options)
    ranking = Ranking.from_dict(json.loads(out))
    assert code == 0
    assert [row.name for row in ranking if row.average_of] == ["checkpoint-005~mean2"]
    left_out = "2 averages across a drop of the learning rate, which fell to half or less by "
    assert any(note.startswith(f"{left_out}checkpoint-010,") for note in ranking.notes)
    code, out, _ = run("rank", trajectory, "-d", images, *options, "--average-across-drops")
    ranking = Ranking.from_dict(json.loads(out))
    assert sorted(row.name for row in ranking if row.average_of) == MEANS
    assert not any("learning rate" in note for note in ranking.notes)
    assert "--average 2,3 --average-across-drops" in rank_command(ranking)


def test_by_the_epoch_the_last_checkpoint_stays_first(trajectory: Path, images: Path) -> None:
    ranking = ckptsel.rank(trajectory, images, goal="ft", average=(2, 3), scores=("linear_probe",))
    assert [row.name for row in ranking] == [
        *("checkpoint-010", "checkpoint-010~mean2", "checkpoint-010~mean3"),
        *("checkpoint-005", "checkpoint-005~mean2", "checkpoint-001"),
    ]


def test_a_chart_has_no_line_through_averages(averaged: Path) -> None:
    ranking = ranking_in(averaged)
    axis = choose_axis(ranking)
    assert axis.name == "epoch"
    probes = [r for r in trajectory_records(ranking, axis) if r["series"] == "linear_probe"]
    assert [r["x"] for r in probes] == [1, 5, 10]
    assert sorted(r["checkpoint"] for r in average_records(ranking, axis)) == MEANS


def test_points_of_averages_are_drawn_and_no_best_path_is_given(averaged: Path) -> None:
    ranking = ranking_in(averaged)
    (panel, *_) = [one for one in draw(ranking, {}) if one.name == "trajectory-linear_probe"]
    drawn = [each.get("data", {}).get("values", []) for each in panel.chart.to_dict()["layer"]]
    assert any(sorted(point["checkpoint"] for point in points) == MEANS for points in drawn)
    best = ranking["checkpoint-010~mean3"]
    of_mean = dataclasses.replace(ranking, best=best.name)
    assert step_outputs(of_mean, None, None).startswith("best-path=\nbest-epoch=10\n")
    said = "It is the mean of the weights of checkpoint-001, checkpoint-005, checkpoint-010"
    assert said in page(of_mean, draw(of_mean, {}))
    said = "the mean of the weights of checkpoint-001, checkpoint-005, checkpoint-010, chosen"
    assert said in card_text(ranking, best)


def test_how_averages_came_about_is_explained(averaged: Path, ranked: Path) -> None:
    assert "averages" in dict(explain(ranking_in(averaged)))
    assert "averages" not in dict(explain(ranking_in(ranked)))


def test_a_cluster_is_told_where_each_part_lies() -> None:
    mean = average_of([average_of([made("a"), made("b")]), made("c")])
    moved = _with_paths(mean, lambda c: dataclasses.replace(c, path=Path("x") / c.path))
    assert [c.path for c in (moved, *moved.parts, *moved.parts[0].parts)] == [
        Path("x") / name for name in "cbcab"
    ]


def test_layers_and_averages(trajectory: Path, images: Path) -> None:
    options = {"scores": ("linear_probe",), "layers": ("layer1", "last"), "average": (2,)}
    ranking = ckptsel.rank(trajectory, images, **options)
    assert len(ranking) == 10
    assert ranking["checkpoint-010~mean2@layer1"].checkpoint == "checkpoint-010~mean2"
    last = ranking.references["last_checkpoint"].name
    assert last in ("checkpoint-010", "checkpoint-010@layer1")
    averages_first = [dataclasses.replace(r, rank=1 if r.average_of else 2) for r in ranking]
    assert not layer_references(averages_first)["last_checkpoint"].average_of
    xs = [r["candidate"] for r in layer_records(ranking, choose_axis(ranking))]
    assert len(xs) == 6 and not any("mean" in name for name in xs)


def test_comparing_orders_leaves_averages_out(averaged: Path) -> None:
    both = compare(*read_ranking(averaged), *read_ranking(averaged))
    assert len(both.matched.pairs) == 6
    assert both.order is None  # of three checkpoints nothing is said, of six it would be


@pytest.mark.slow
def test_processes_parts_and_targets(
    run, averaged: Path, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    def values(ranking: Ranking) -> dict[str, float]:
        return {row.name: row.scores["linear_probe"].value for row in ranking}

    expected = values(ranking_in(averaged))
    options = {"scores": ("linear_probe",), "average": (2, 3)}
    apart = ckptsel.rank(trajectory, images, processes=2, cache_dir=str(tmp_path / "c2"), **options)
    assert values(apart) == expected
    words = ("--scores", "linear_probe", "--average", "2,3", "--cache-dir", tmp_path / "c3", "-q")
    for part in ("1/2", "2/2"):
        code, out, _ = run("rank", trajectory, "-d", images, *words, "--shard", part)
        assert code == 0 and "scores of 3 of 3 candidates" in out
    code, out, _ = run("rank", trajectory, "-d", images, *words, "-f", "json")
    found = json.loads(out)
    assert code == 0 and values(Ranking.from_dict(found)) == expected
    assert found["time_s"].get("features") is None  # all was in the cache
    save_images(tmp_path / "more" / "train", 12, seed=5)
    save_images(tmp_path / "more" / "val", 10, seed=6)
    both = ("-d", images, "-d", tmp_path / "more", "-o", tmp_path / "both")
    assert run("rank", trajectory, *both, *words)[0] == 0
    assert values(ranking_in(tmp_path / "both" / "images")) == expected
    table = json.loads((tmp_path / "both" / "targets.json").read_text())
    assert {row["name"] for row in table["candidates"]} == set(expected)


def test_a_replaced_part_fails_its_averages_alone_by_name(
    trajectory: Path, images: Path, monkeypatch
) -> None:
    scores = ("linear_probe",)
    ckptsel.rank(trajectory, images, scores=scores)  # each checkpoint's scores are kept by now

    def replace_first(*given):
        found = with_averages(*given)
        save_checkpoint(trajectory / "checkpoint-001.safetensors", 9, 1, 0.4)
        return found

    monkeypatch.setattr(ranking_module, "with_averages", replace_first)
    ranking = ckptsel.rank(trajectory, images, scores=scores, average=(2, 3))
    failed = {row.name: row.reason for row in ranking if row.status == "failed"}
    assert sorted(failed) == ["checkpoint-005~mean2", "checkpoint-010~mean3"]
    for reason in failed.values():
        assert reason.startswith("checkpoint-001, which it is a mean of: the file was replaced")


def test_pick_writes_the_mean_and_names_no_file_without(
    run, averaged: Path, trajectory: Path, tmp_path: Path
) -> None:
    of = ("--checkpoint", "checkpoint-005~mean2")
    code, out, err = run("pick", averaged, *of)
    assert (code, out) == (3, "")
    assert "checkpoint-005~mean2 is an average, which lies in no file: write it to one" in err
    file = tmp_path / "mean.safetensors"
    code, out, _ = run("pick", averaged, *of, "--to", file)
    assert (code, out) == (0, f"{file}\n")
    one, two = (load_file(trajectory / f"checkpoint-00{i}.safetensors") for i in (1, 5))
    for name, tensor in load_file(file).items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, ((one[name].double() + two[name].double()) / 2).float())
        else:
            assert torch.equal(tensor, two[name])
    (found,) = scan_checkpoints(file)
    assert found.epoch == 5
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["average_of"] == "checkpoint-001, checkpoint-005"
    code, out, _ = run("pick", averaged, *of, "-f", "json")
    assert code == 0 and len(json.loads(out)["average_of"]) == 2


def test_parts_may_lie_at_an_address(run, trajectory: Path, images: Path, tmp_path: Path) -> None:
    options = ("--scores", "linear_probe", "--average", "2", "-o", tmp_path / "r", "-q")
    assert run("rank", f"file://{trajectory}", "-d", images, *options)[0] == 0
    row = ranking_in(tmp_path / "r")["checkpoint-005~mean2"]
    assert row.average_of[0].path == f"file://{trajectory}/checkpoint-001.safetensors"
    to = tmp_path / "m.safetensors"
    assert run("pick", tmp_path / "r", "--checkpoint", row.name, "--to", to)[0] == 0
    assert to.exists()


def test_extract_reads_an_average(run, averaged: Path, images: Path, tmp_path: Path) -> None:
    """Features and predictions are those of the file that `pick` writes, ranked by itself."""

    def extracted(ranking: Path, to: Path, *options: object) -> dict[str, np.ndarray]:
        words = ("-d", images / "val", "--to", to, "--predictions", "-q")
        code, _, err = run("extract", ranking, *words, *options)
        assert code == 0, err
        with np.load(to) as arrays:
            return {name: arrays[name] for name in ("features", "probabilities")}

    of = "checkpoint-010~mean2"
    mean, out = tmp_path / "mean" / "m.safetensors", tmp_path / "of-mean"
    mean.parent.mkdir()
    run("pick", averaged, "--checkpoint", of, "--to", mean)
    run("rank", mean.parent, "-d", images, "--scores", "linear_probe", "-o", out, "-q")
    one = extracted(averaged, tmp_path / "f.npz", "--candidate", of)
    two = extracted(out, tmp_path / "g.npz")
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_confirm_trains_averages_and_names_a_part_that_changed(
    run, averaged: Path, trajectory: Path
) -> None:
    small = ("--steps", 10, "--lr", "0.1", "-q", "--candidates", 6)
    code, _, err = run("confirm", averaged, "--goal", "both", *small)
    assert code == 0, err
    ranking = ranking_in(averaged)
    assert all(set(row.confirmed or {}) == {"fe", "ft"} for row in ranking)
    assert ranking.references["last"].name == "checkpoint-010"
    save_checkpoint(trajectory / "checkpoint-001.safetensors", 9, 1, 0.4)
    code, _, err = run("confirm", averaged, *small)
    assert code == 3
    assert (
        "1 of 3 checkpoints are not what was ranked" in err and "checkpoint-001: has changed" in err
    )


def test_confirm_looks_for_each_part(averaged: Path, trajectory: Path) -> None:
    from ckptsel.confirmation.candidates import find_checkpoints
    from ckptsel.settings.confirm import ConfirmSettings

    ranking = ranking_in(averaged)
    row = ranking["checkpoint-010~mean3"]
    (found,) = find_checkpoints(ranking, [row], ConfirmSettings(), quiet=True).items()
    assert (found[0], found[1].digest) == (row.name, row.digest)
    (trajectory / "checkpoint-001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="checkpoint-001: not there any more"):
        find_checkpoints(ranking, [row], ConfirmSettings(), quiet=True)


def test_confirm_takes_the_last_checkpoint_along_and_not_an_average(averaged: Path) -> None:
    from ckptsel.confirmation.candidates import choose_candidates

    ranking = ranking_in(averaged)
    rows = [
        dataclasses.replace(row, score_rank=7 if row.name == "checkpoint-010" else row.score_rank)
        for row in ranking
    ]
    alone = dataclasses.replace(
        ranking, checkpoints=tuple(dataclasses.replace(row, score_tie=False) for row in rows)
    )
    assert "checkpoint-010" in [row.name for row in choose_candidates(alone, "fe")]


def test_files_of_before_are_read(ranked: Path) -> None:
    value = json.loads((ranked / "ranking.json").read_text())
    for row in value["checkpoints"]:
        del row["average_of"]
    del value["settings"]["average"], value["settings"]["average_across_drops"]
    assert all(row.average_of == () for row in Ranking.from_dict(value))


def test_what_a_ranking_says_of_parts_is_checked(run, averaged: Path, tmp_path: Path) -> None:
    ranking = ranking_in(averaged)
    row = ranking["checkpoint-005~mean2"]
    assert checkpoint_of(row).digest == row.digest
    other = dataclasses.replace(row.average_of[0], digest="0" * 64)
    with pytest.raises(InputError, match="is not the average of what the ranking names"):
        checkpoint_of(dataclasses.replace(row, average_of=(other, row.average_of[1])))
    # Another file under a part's name is not taken for it.
    value = json.loads((averaged / "ranking.json").read_text())
    (mean,) = [r for r in value["checkpoints"] if r["name"] == row.name]
    mean["average_of"][0]["path"] = mean["average_of"][1]["path"]
    (averaged / "ranking.json").write_text(json.dumps(value))
    to = tmp_path / "m.safetensors"
    code, _, err = run("pick", averaged, "--checkpoint", row.name, "--to", to)
    assert code == 3 and "has changed since it was ranked" in err and not to.exists()
    mean["average_of"] *= 60
    with pytest.raises(InputError, match="at most 100 items"):
        Ranking.from_dict(value)


def test_an_average_is_read_with_its_parts_checked(trajectory: Path) -> None:
    found = scan_checkpoints(trajectory)
    mean = read_weights(average_of(found))
    assert mean["conv1.weight"].dtype == torch.float32
    save_checkpoint(trajectory / "checkpoint-005.safetensors", 9, 5, 0.6)
    with pytest.raises(
        CheckpointError, match="^checkpoint-005, which it is a mean of: the file was"
    ):
        read_weights(average_of(found))


def test_wrong_sizes_and_watch(run, trajectory: Path, images: Path, tmp_path: Path) -> None:
    base = (trajectory, "-d", images, "-q")
    code, _, err = run("rank", *base, "--average", "1,2")
    assert code == 2 and "--average is" in err and "whole numbers from 2 to 100" in err
    code, _, err = run("rank", *base, "--average", "two")
    assert code == 2 and "'two' is not a list of numbers such as 2,3,5" in err
    code, _, err = run("rank", *base, "--average-across-drops", "--scores", "linear_probe")
    assert code == 0 and "--average-across-drops has no effect: no averages are asked for." in err
    code, _, err = run("watch", *base, "-o", tmp_path / "w", "--average", "2", "--stop-after", 0)
    assert code == 2 and "watch ranks checkpoints alone" in err and "leave out --average" in err


SGD = {"state": {}, "param_groups": [{"lr": 0.01, "params": []}, {"lr": 0.1, "params": []}]}


@pytest.mark.parametrize(
    ("beside", "rate"),
    [
        ({"optimizer": SGD}, 0.1),
        ({"optimizer_states": [SGD], "lr_schedulers": [{"_last_lr": [0.5]}]}, 0.1),
        ({"optimizer": {"g": SGD}}, 0.1),
        ({"lr_scheduler": {"_last_lr": [0.001, 0.002]}}, 0.002),
        ({"LR": 0.25, "epoch": 3}, 0.25),
        ({"optimizer": {"param_groups": [{"lr": torch.tensor(0.5), "params": []}]}}, 0.5),
        ({"args": {"lr": 0.3}}, None),
        ({"optimizer": {"param_groups": "no list"}, "scheduler": {"_last_lr": 3}, "lr": -1}, None),
        ({}, None),
    ],
)
def test_the_learning_rate_that_a_file_records(tmp_path: Path, beside, rate) -> None:
    torch.save({"state_dict": {"w": torch.ones(2, 2)}, **beside}, tmp_path / "c.pth")
    (found,) = scan_checkpoints(tmp_path / "c.pth")
    assert found.problem is None and found.learning_rate == pytest.approx(rate)
    (row,) = json.loads(checkpoints_text([found], "json"))
    assert row["learning_rate"] == found.learning_rate


def test_the_learning_rate_that_a_trainer_logged(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    log = [{"learning_rate": 0.2, "step": 1}, {"learning_rate": 0.1, "step": 2}, {"eval_loss": 1}]
    state = {"global_step": 2, "log_history": log}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    (found,) = scan_checkpoints(tmp_path)
    assert found.learning_rate == 0.1


@pytest.mark.slow
def test_what_the_documentation_shows_comes_out(run) -> None:
    """Numbers in the last digits depend on the machine."""
    root = Path(__file__).parents[1]
    page = (root / "docs" / "averages.md").read_text(encoding="utf-8")
    shown = page[page.index("<!-- demo -->") : page.index("<!-- /demo -->")]
    folder = root / "reference_runs" / "cifar10-mnist-small"
    options = ("--scores", "linear_probe", "--average", "2,3,5", "-q")
    data = folder / "targets" / "mnist-1000"
    code, out, _ = run("rank", folder / "seed0" / "checkpoints", "-d", data, *options)

    def accuracies(table: str) -> dict[str, float]:
        found = re.findall(r"(checkpoint-\S+) +\d+(?: +\d\d\.\d)? +(\d\d\.\d) \[", table)
        return {name: float(accuracy) for name, accuracy in found}

    assert code == 0 and len(accuracies(shown)) == 5 and len(accuracies(out)) == 49
    for name, accuracy in accuracies(shown).items():
        assert accuracies(out)[name] == pytest.approx(accuracy, abs=0.3)
    said = (
        r"checkpoint-\d+ is recommended|of averages the best is \S+,|which does not tell them apart"
    )
    assert len(re.findall(said, shown)) == 3
    assert re.findall(said, shown) == re.findall(said, out)
