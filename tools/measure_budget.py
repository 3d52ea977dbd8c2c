"""What `rank --budget` loses and saves, replayed on rankings of all checkpoints: `docs/search.md`.

    python -m tools.measure_budget RANKING... --rates log.csv --out results.jsonl
    python -m tools.measure_budget --made 200 --out results.jsonl

A ranking (a folder of `rank --out`) gives several cases: the search, and the ranking of all, choose by
a random half of its held-out images; the other half says what the chosen ones are worth. Cases that
stand in the file of results are not replayed again.

score: that decides. rates: a table with the columns epoch and lr, since rankings hold no learning rates;
none is known without. made: as many trajectories of 120 checkpoints that are made up, besides.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.common.streams import put
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.intervals import Values
from ckptsel.ranking.judgement import Judgement, Readings, judge
from ckptsel.ranking.order import TIE_BREAK
from ckptsel.ranking.scoring import Outcome
from ckptsel.ranking.turns import Search
from ckptsel.results.files import read_ranking
from ckptsel.results.scores import ScoreResult
from ckptsel.settings.rank import RankSettings

N_MADE, N_IMAGES = 120, 2000


@dataclass(frozen=True)
class Case:
    """values, tie_break: (n, n_images), by which is chosen. worth: (n,), which nothing chose by."""

    score: str
    name: str
    checkpoints: Sequence[Checkpoint]
    values: Values
    tie_break: Values
    worth: Values

    @cached_property
    def judgement(self) -> Judgement:
        """The ranking of all."""
        return judge(Readings(self.values[:, None], tie_break=self.tie_break))


def cases_of(
    folder: Path, score: str, rates: Mapping[float, float], n_halves: int
) -> Iterator[Case]:
    ranking, arrays = read_ranking(folder)
    rows = sorted(
        (row for row in ranking if row.rank and not row.copy_of), key=lambda row: row.order
    )
    checkpoints = [
        Checkpoint(
            row.name,
            Path(row.path),
            epoch=row.epoch,
            source_accuracy=row.source_accuracy,
            learning_rate=rates.get(row.epoch or 0),
        )
        for row in rows
    ]
    values, finer = (
        np.stack([np.asarray(arrays[f"{row.name}/{name}/per_image"], np.float64) for row in rows])
        for name in (score, TIE_BREAK.get(score, score))
    )
    n = values.shape[1]
    for i in range(n_halves):
        drawn = np.random.default_rng(i).permutation(n)
        half, rest = drawn[: n // 2], drawn[n // 2 :]
        yield Case(
            score,
            f"{folder.name}/{score} {i}",
            checkpoints,
            values[:, half],
            finer[:, half],
            values[:, rest].mean(axis=1),
        )


def made_case(seed: int) -> Case:
    """A curve over the logarithm of the epoch that rises and falls, jumps where the learning rate falls,
    and has of each checkpoint's own by the root of the rate; of images that are hard for all alike."""
    random = np.random.default_rng(seed)
    x = np.log(np.arange(1, N_MADE + 1)) / np.log(N_MADE)
    drops = sorted(
        random.choice(np.arange(20, N_MADE - 10), size=random.integers(0, 3), replace=False)
    )
    stretch = np.searchsorted(drops, np.arange(N_MADE), side="right")
    worth = 0.8 - random.uniform(0, 0.15) * (x - random.uniform(-0.2, 1.2)) ** 2
    worth = worth + random.uniform(0, 0.02) * np.sin(2 * np.pi * (random.uniform() + 1.5 * x))
    worth = worth + np.cumsum([0.0, *random.normal(0, 0.02, 2)])[stretch]
    rates = 0.1 * 0.1**stretch
    worth += random.uniform(0, 0.01) * np.sqrt(rates / 0.1) * random.standard_normal(N_MADE)
    hard, own = random.standard_normal(N_IMAGES), random.standard_normal((N_MADE, N_IMAGES))
    shared = random.uniform(0.7, 0.95)
    right = np.sqrt(shared) * hard + np.sqrt(1 - shared) * own < ndtri(worth)[:, None]
    checkpoints = [
        Checkpoint(f"{i + 1}", Path(), epoch=i + 1, learning_rate=float(rates[i]))
        for i in range(N_MADE)
    ]
    values = right.astype(np.float64)
    return Case("linear_probe", f"made {seed}", checkpoints, values, values, worth)


def replay(case: Case, budget: str, tolerance: float) -> dict[str, float]:
    """What a search finds, beside the ranking of all. Differences in points."""
    settings = RankSettings(budget=budget, tolerance=tolerance, by=case.score)
    search = Search([Candidate(checkpoint) for checkpoint in case.checkpoints], settings, 1, 0.0)
    places = {checkpoint.name: i for i, checkpoint in enumerate(case.checkpoints)}
    seen = []
    for turn in search:
        for candidate in turn:
            seen.append(places[candidate.name])
            values = case.values[seen[-1]]
            result = ScoreResult(float(values.mean()), values)
            search.hear(Outcome(candidate.name, {case.score: result}))
    means = case.values.mean(axis=1)
    chosen = judge(Readings(case.values[seen][:, None], tie_break=case.tie_break[seen])).chosen
    place, reference = seen[chosen], case.judgement.chosen
    record = search.record(places)
    unseen = np.setdiff1d(np.arange(len(means)), seen)
    ahead = case.worth[unseen].max(initial=0) - case.worth[max(seen, key=lambda i: means[i])]
    return {
        "share": len(seen) / len(means),
        "regret_new": 100 * (case.worth[reference] - case.worth[place]),
        "regret_same": 100 * (means.max() - means[seen].max()),
        "in_tie_set": float(case.judgement.in_tie_set[place]),
        "chance": record.chance or 0.0,
        "is_ahead": float(ahead > tolerance),
    }


def read_rates(path: Path | None) -> dict[float, float]:
    if path is None:
        return {}
    with path.open(encoding="utf-8") as lines:
        return {float(row["epoch"]): float(row["lr"]) for row in csv.DictReader(lines)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rankings", nargs="*", type=Path)
    parser.add_argument("--score", default="linear_probe")
    parser.add_argument("--rates", type=Path)
    parser.add_argument("--made", type=int, default=0)
    parser.add_argument("--halves", type=int, default=10)
    parser.add_argument("--budgets", default="auto,30")
    parser.add_argument("--tolerances", default="0.01,0.005")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    known = (
        [json.loads(line) for line in given.out.read_text().splitlines()]
        if given.out.exists()
        else []
    )
    done = {(one["case"], one["budget"], one["tolerance"], one["rates"]) for one in known}
    rates = read_rates(given.rates)
    cases = [
        case
        for folder in given.rankings
        for case in cases_of(folder, given.score, rates, given.halves)
    ]
    cases += [made_case(seed) for seed in range(given.made)]
    for case in cases:
        for budget in given.budgets.split(","):
            for tolerance in map(float, given.tolerances.split(",")):
                key = (case.name, budget, tolerance, bool(rates))
                if key in done:
                    continue
                about = dict(zip(("case", "budget", "tolerance", "rates"), key, strict=True))
                known.append({**about, **replay(case, budget, tolerance)})
                with given.out.open("a") as out:
                    out.write(json.dumps(known[-1]) + "\n")
    put_table(known)


def put_table(results: Sequence[Mapping[str, float]]) -> None:
    """For each kind of case: means over cases, and the spread of what is lost and of the cost."""
    by_kind: dict[tuple[object, ...], list[Mapping[str, float]]] = {}
    for one in results:
        kind = (str(one["case"]).split()[0], one["rates"], one["budget"], one["tolerance"])
        by_kind.setdefault(kind, []).append(one)
    for kind, mine in by_kind.items():
        lost, share = ([one[key] for one in mine] for key in ("regret_new", "share"))
        means = {key: np.mean([one[key] for one in mine]) for key in list(mine[0])[4:]}
        put(
            f"{' '.join(map(str, kind))}, n = {len(mine)}: "
            + ", ".join(f"{key} {value:.3f}" for key, value in means.items())
            + f"; regret_new sd {np.std(lost):.2f}, worst {max(lost):.2f}; "
            + f"share {min(share):.2f} to {max(share):.2f}\n"
        )


if __name__ == "__main__":
    main()
