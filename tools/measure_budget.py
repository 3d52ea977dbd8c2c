"""What `rank --budget` loses and saves, replayed on rankings of all checkpoints: `docs/search.md`.

    python -m tools.measure_budget RANKING... --rates log.csv --out results.jsonl
    python -m tools.measure_budget --made 200 --out results.jsonl

A ranking (a folder of `rank --out`) gives several cases: the search, and the ranking of all, choose by
a random half of its held-out images; the other half says what the chosen ones are worth. Cases that
stand in the file of results are not replayed again.

score: that decides. rates: a table with the columns epoch and lr, since rankings hold no learning rates;
none is known without. made: as many trajectories of 120 checkpoints that are made up, besides.
parts: how much of the images is read of each checkpoint (`tools/growing.py`). chosen-by: the part of
the held-out images that is chosen by; with 1 none are left to say what that is worth, and what differs
from draw to draw is their order alone.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.common.streams import put
from ckptsel.ranking.intervals import Values
from ckptsel.ranking.judgement import Judgement, Readings, judge
from ckptsel.ranking.order import TIE_BREAK
from ckptsel.results.files import read_ranking
from ckptsel.settings.rank import RankSettings
from tools.growing import PARTS, GrowingSearch
from tools.json_lines import add_line, read_lines

N_MADE, N_IMAGES = 120, 2000

KEYS = ("case", "rates", "budget", "tolerance", "parts")
"""What a line of the results is of."""


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
    folder: Path, score: str, rates: Mapping[float, float], n_draws: int, part: float = 0.5
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
    finer = TIE_BREAK.get(score, score)
    # A ranking by the deciding score alone has no other that breaks ties.
    if f"{rows[0].name}/{finer}/per_image" not in arrays:
        finer = score
    values, tie_break = (
        np.stack([np.asarray(arrays[f"{row.name}/{name}/per_image"], np.float64) for row in rows])
        for name in (score, finer)
    )
    n = values.shape[1]
    for i in range(n_draws):
        drawn = np.random.default_rng(i).permutation(n)
        chosen_by, rest = np.split(drawn, [round(part * n)])
        judged_by = rest if len(rest) else chosen_by
        yield Case(
            score,
            f"{folder.name}/{score}/{part:g} {i}",
            checkpoints,
            values[:, chosen_by],
            tie_break[:, chosen_by],
            values[:, judged_by].mean(axis=1),
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


def replay(case: Case, budget: str, tolerance: float, parts: str) -> dict[str, float]:
    """What a search finds, beside the ranking of all. Differences in points."""
    settings = RankSettings(budget=budget, tolerance=tolerance, by=case.score)
    reference, ties = case.judgement.chosen, case.judgement.in_tie_set
    search = GrowingSearch(case.checkpoints, settings, case.values, ties, parts)
    search.run()
    n_images, n = case.values.shape[1], max(search.n_read.values())
    finalists = [i for i in search.n_read if search.n_read[i] == n]
    values = case.values[finalists, :n]
    place = finalists[
        judge(Readings(values[:, None], tie_break=case.tie_break[finalists, :n])).chosen
    ]
    means, best = case.values.mean(axis=1), finalists[values.mean(axis=1).argmax()]
    record = search.record({checkpoint.name: i for i, checkpoint in enumerate(case.checkpoints)})
    unseen = np.setdiff1d(np.arange(len(means)), list(search.n_read))
    ahead = case.worth[unseen].max(initial=0) - case.worth[best]
    return {
        "share": len(search.n_read) / len(means),
        "images": sum(search.n_read.values()) / n_images / len(means),
        "regret_new": 100 * (case.worth[reference] - case.worth[place]),
        "regret_same": 100 * (means.max() - means[best]),
        "in_tie_set": float(ties[place]),
        "ties_cut": float(sum(ties[i] for i in search.n_read if search.n_read[i] < n_images)),
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
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--chosen-by", type=float, default=0.5)
    parser.add_argument("--parts", default="whole", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--budgets", default="auto,30")
    parser.add_argument("--tolerances", default="0.01,0.005")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    known = read_lines(given.out)
    done = {tuple(one[key] for key in KEYS) for one in known}
    rates = read_rates(given.rates)
    cases = [
        case
        for folder in given.rankings
        for case in cases_of(folder, given.score, rates, given.draws, given.chosen_by)
    ]
    cases += [made_case(seed) for seed in range(given.made)]
    lists = (
        given.budgets.split(","),
        map(float, given.tolerances.split(",")),
        given.parts.split(","),
    )
    for case, (budget, tolerance, parts) in product(cases, list(product(*lists))):
        key = (case.name, bool(rates), budget, tolerance, parts)
        if key in done:
            continue
        about = dict(zip(KEYS, key, strict=True))
        known.append({**about, **replay(case, budget, tolerance, parts)})
        add_line(given.out, known[-1])
    put_table(known)


def put_table(results: Sequence[Mapping[str, float]]) -> None:
    """For each kind of case: means over cases, and the spread of what is lost and of the cost."""
    by_kind: dict[tuple[object, ...], list[Mapping[str, float]]] = {}
    for one in results:
        kind = (str(one["case"]).split()[0], *(one[key] for key in KEYS[1:]))
        by_kind.setdefault(kind, []).append(one)
    for kind, mine in by_kind.items():
        lost, share = ([one[key] for one in mine] for key in ("regret_new", "share"))
        means = {key: np.mean([one[key] for one in mine]) for key in list(mine[0])[len(KEYS) :]}
        put(
            f"{' '.join(map(str, kind))}, n = {len(mine)}: "
            + ", ".join(f"{key} {value:.3f}" for key, value in means.items())
            + f"; regret_new sd {np.std(lost):.2f}, worst {max(lost):.2f}; "
            + f"share {min(share):.2f} to {max(share):.2f}\n"
        )


if __name__ == "__main__":
    main()
