"""How often intervals, tie sets and gate verdicts are right, on made candidates: `make simulations`.

cells of a grid -> samples of each -> docs/coverage.csv, to which it goes on adding where it was stopped
-> the tables of docs/coverage.md

An image is right where its difficulty, partly shared by all candidates, is below what a candidate can
do. A cell is run again with more samples where its first give less than 95 %.
"""

import argparse
import csv
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from ckptsel.common.files import write_text
from ckptsel.ranking.judgement import Judgement, Readings, estimate_mean, judge
from ckptsel.results.estimate import Estimate

N_CANDIDATES = (1, 2, 8, 30)
N_IMAGES = (10, 20, 50, 100, 400, 2000)
ACCURACIES = (0.5, 0.9, 0.99, 1.0)
SHARED = (0.0, 0.5, 0.9)
SHAPES = ("equal", "one better", "smooth")
N_SEEDS = (1, 2, 3, 5)

N_SAMPLES, N_SAMPLES_MORE = 200, 1000
ENOUGH = 0.95

ALMOST_ONE = 1 - 1e-9
OWN_SCATTER, SHARED_SCATTER = 0.01, 0.005
"""Standard deviation of accuracy between training runs."""

REPEAT_NOISE = 0.2
"""Part of the difficulty that is drawn again in every repeat of a cross-validation."""

MARKS = ("<!-- intervals -->", "<!-- /intervals -->")

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One place of the grid.

    method: `hold-out` (also cross-validation without repeats: an image is read once), `repeated`
    (three times), `confirmed` (runs that scatter) or `confirmed, no scatter`.
    shared: part of an image's difficulty that all candidates share.
    shape: of the true accuracies.
    """

    method: str
    n_candidates: int
    n_images: int
    accuracy: float
    shared: float
    shape: str
    n_seeds: int = 1

    @property
    def name(self) -> str:
        return "/".join(map(str, asdict(self).values()))

    def true_accuracies(self) -> Values:
        """(n_candidates,); differences in standard errors of a paired difference."""
        k = np.arange(self.n_candidates)
        p = self.accuracy
        error = np.sqrt(2 * p * (1 - p) * (1 - self.shared) / self.n_images)
        if self.shape == "one better":
            steps = 2.0 * (k == 0)
        elif self.shape == "smooth":
            steps = -8.0 * (k / self.n_candidates - 1 / 3) ** 2
        else:
            steps = np.zeros(self.n_candidates)
        return np.clip(p + error * steps, 0, 1)


def grid() -> list[Cell]:
    cells = []
    for k in N_CANDIDATES:
        for n in N_IMAGES:
            for p in ACCURACIES:
                alone = k == 1 or p == 1
                for shared in SHARED if k > 1 else (0.0,):
                    for shape in SHAPES[:1] if alone else SHAPES:
                        cells.append(Cell("hold-out", k, n, p, shared, shape))
                        if shared == 0.5 or k == 1:
                            cells.append(Cell("repeated", k, n, p, shared, shape))
    for n_seeds in N_SEEDS:
        for k in (2, 8):
            for n in (100, 400, 2000):
                for shape in SHAPES:
                    cells.append(Cell("confirmed", k, n, 0.9, 0.5, shape, n_seeds))
                    cells.append(Cell("confirmed, no scatter", k, n, 0.9, 0.5, shape, n_seeds))
    return cells


def draw(cell: Cell, generator: np.random.Generator) -> tuple[Readings, Values]:
    """One sample: readings, and the true accuracies (n_candidates,)."""
    shape = (cell.n_candidates, cell.n_seeds, cell.n_images)
    true = cell.true_accuracies()
    ability = np.broadcast_to(true[:, None], shape[:2])
    if cell.method == "confirmed":
        shift = OWN_SCATTER * generator.standard_normal(shape[:2])
        shift += SHARED_SCATTER * generator.standard_normal((1, cell.n_seeds))
        ability = np.clip(ability + shift, 0, 1)
    difficulty = np.sqrt(cell.shared) * generator.standard_normal(cell.n_images)
    own = np.sqrt(1 - cell.shared)
    part = generator.standard_normal((cell.n_candidates, 1, cell.n_images))
    if cell.method == "repeated" or cell.n_seeds > 1:
        again = generator.standard_normal((3, *shape) if cell.method == "repeated" else shape)
        part = np.sqrt(1 - REPEAT_NOISE) * part + np.sqrt(REPEAT_NOISE) * again
    limit = norm.ppf(np.clip(ability, 1 - ALMOST_ONE, ALMOST_ONE))[:, :, None]
    margin = limit - difficulty - own * part
    right = (margin > 0).astype(np.float64)
    if cell.method == "repeated":
        right, margin = right.mean(axis=0), margin.mean(axis=0)
    # As `rank`, which breaks ties by what is smoother than accuracy; a race has accuracy alone.
    tie_break = None if cell.method.startswith("confirmed") else margin.mean(axis=1)
    return Readings(right, tie_break=tie_break), true


def outcomes(readings: Readings, judged: Judgement, true: Values, of: int) -> dict[str, float]:
    """What is right and what is not in one sample. of: a candidate that no result chose."""
    behind, chosen = judged.behind_best, judged.chosen
    alone = {i: estimate_mean(readings, readings.per_image[i]) for i in (of, chosen)}
    regret = true.max() - true
    best = true == true.max()
    new = judged.on_new_images
    assert new is not None
    last = len(true) - 1
    return {
        "score": _covers(alone[of], true[of]),
        "score_width": _width(alone[of]),
        "best_alone": _covers(alone[chosen], true[chosen]),
        "behind": _covers(behind[of], regret[of]),
        "behind_width": _width(behind[of]),
        "headline": _covers(behind[last], regret[last]),
        "false_behind": float(best[last] and (behind[last].low or 0) > 0),
        "tie_set": float(judged.in_tie_set[_one_of(best, of)]),
        "tie_set_size": float(judged.in_tie_set.sum()),
        "expected": _covers(new, true[chosen]),
        "expected_width": _width(new),
        "expected_bias": new.value - float(true[chosen]),
        "best_alone_bias": alone[chosen].value - float(true[chosen]),
        "accuracy_passes_wrongly": float((new.low or 0) > true[chosen]),
        "accuracy_fails_wrongly": float((new.high or 0) < true[chosen]),
        "regret_passes_wrongly": float((behind[of].high or 0) < regret[of] - 1e-12),
        "regret_fails_wrongly": float((behind[of].low or 0) > regret[of] + 1e-12),
    }


def _one_of(best: NDArray[np.bool_], of: int) -> int:
    places = np.flatnonzero(best)
    return int(places[of % len(places)])


def _covers(estimate: Estimate, truth: float) -> float:
    low, high = estimate.bounds
    return float(low - 1e-12 <= truth <= high + 1e-12)


def _width(estimate: Estimate) -> float:
    low, high = estimate.bounds
    return high - low


COVERAGES = ("score", "behind", "headline", "tie_set", "expected")


def run_cell(cell: Cell) -> dict[str, Any]:
    """Means over samples of what `outcomes` gives."""
    total: dict[str, float] = {}
    n = 0
    for limit in (N_SAMPLES, N_SAMPLES_MORE):
        while n < limit:
            generator = np.random.default_rng((zlib.crc32(cell.name.encode()), n))
            readings, true = draw(cell, generator)
            of = int(generator.integers(cell.n_candidates))
            found = outcomes(readings, judge(readings, seed=n), true, of)
            total = {name: total.get(name, 0) + value for name, value in found.items()}
            n += 1
        if all(total[name] / n >= ENOUGH for name in COVERAGES):
            break
    means = {name: value / n for name, value in total.items()}
    return {**asdict(cell), "n_samples": n, **means}


def read_csv(path: Path) -> dict[Cell, dict[str, Any]]:
    """Rows by cell; none where there is no file yet."""
    if not path.exists():
        return {}
    kinds = get_type_hints(Cell)
    rows = {}
    with path.open(newline="", encoding="utf-8") as lines:
        for texts in csv.DictReader(lines):
            row = {name: kinds.get(name, float)(text) for name, text in texts.items()}
            row["n_samples"] = int(row["n_samples"])
            rows[Cell(**{name: row[name] for name in kinds})] = row
    return rows


def simulate(path: Path, cells: Sequence[Cell]) -> None:
    """Adds the cells that the file does not have, each as it is done."""
    rows = read_csv(path)
    # In a mixed order: what is there when it is stopped is a sample of the whole grid.
    mixed = np.random.default_rng(0).permutation(len(cells))
    for i, cell in enumerate((cells[place] for place in mixed), start=1):
        if cell not in rows:
            rows[cell] = run_cell(cell)
            write_csv(path, [rows[each] for each in cells if each in rows])
            print(f"{i}/{len(cells)} {cell.name}", flush=True)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: by method, candidates and images, the worst cell of each kind and mean widths."""
    lines = [
        "| method | candidates | images | cells | score | width | behind the best | width | headline | "
        "tie set holds the best | its size | expected | width | (best alone) | false 'behind' |",
        "|" + " --- |" * 15,
    ]
    for key, group in _groups(rows):
        worst = {name: min(row[name] for row in group) for name in (*COVERAGES, "best_alone")}
        mean = {
            name: np.mean([row[name] for row in group])
            for name in ("score_width", "behind_width", "tie_set_size", "expected_width")
        }
        false = max(row["false_behind"] for row in group)
        cells = (
            *key,
            len(group),
            f"{100 * worst['score']:.1f}",
            f"{100 * mean['score_width']:.1f}",
            f"{100 * worst['behind']:.1f}",
            f"{100 * mean['behind_width']:.1f}",
            f"{100 * worst['headline']:.1f}",
            f"{100 * worst['tie_set']:.1f}",
            f"{mean['tie_set_size']:.1f}",
            f"{100 * worst['expected']:.1f}",
            f"{100 * mean['expected_width']:.1f}",
            f"{100 * worst['best_alone']:.1f}",
            f"{100 * false:.1f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _groups(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        seeds = f", {row['n_seeds']} seed{'s' * (row['n_seeds'] > 1)}"
        method = row["method"] + (seeds if row["method"].startswith("confirmed") else "")
        groups.setdefault((method, row["n_candidates"], row["n_images"]), []).append(row)
    yield from sorted(groups.items(), key=lambda item: item[0])


ERRORS = (
    "accuracy_passes_wrongly",
    "accuracy_fails_wrongly",
    "regret_passes_wrongly",
    "regret_fails_wrongly",
)


def errors_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: how often the gate would pass or fail wrongly, by method, with a limit that lies as
    near the truth as can be on its wrong side; the worst cell."""
    lines = [
        "| method | cells | min-accuracy passes wrongly | fails wrongly | max-regret passes wrongly "
        "| fails wrongly |",
        "|" + " --- |" * 6,
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        one = row["method"] == "confirmed" and row["n_seeds"] == 1
        groups.setdefault(row["method"] + ", 1 seed" * one, []).append(row)
    for method, group in sorted(groups.items()):
        worst = [f"{100 * max(row[name] for row in group):.1f}" for name in ERRORS]
        lines.append(f"| {method} | {len(group)} | {' | '.join(worst)} |")
    return "\n".join(lines) + "\n"


def page_part(rows: Sequence[dict[str, Any]], n_cells: int) -> str:
    """What docs/coverage.md says of the grid."""
    n = sorted({row["n_samples"] for row in rows})
    some = f"{len(rows)} of {n_cells}" if len(rows) < n_cells else f"All {n_cells}"
    return (
        f"{some} cells, {n[0]} samples each, {n[-1]} where the first gave less than 95 %.\n\n"
        f"{tables(rows)}\nHow often the gate would be wrong, in % of samples:\n\n{errors_table(rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, default=Path("docs/coverage.csv"))
    parser.add_argument("--page", type=Path, default=Path("docs/coverage.md"))
    parser.add_argument("--only-page", action="store_true", help="run nothing more")
    arguments = parser.parse_args()
    cells = grid()
    if not arguments.only_page:
        simulate(arguments.csv, cells)
    page = arguments.page.read_text(encoding="utf-8")
    first, last = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    part = f"\n{page_part(list(read_csv(arguments.csv).values()), len(cells))}"
    write_text(arguments.page, page[:first] + part + page[last:])


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    write_text(path, text.getvalue())


if __name__ == "__main__":
    main()
