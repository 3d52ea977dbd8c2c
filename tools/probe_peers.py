"""The probe beside scikit-learn's, and beside the paper's: `python -m tools.probe_peers --out FILE`.

scikit-learn: `LogisticRegression` (lbfgs, at most 200 iterations, warm starts along the path) on
standardised features, C from 1e-5 to 1e3 in half decades, five stratified folds of its own inside
the fitting part. Three choices of C are read from the same fits: by held-out log-likelihood (the
peer), by held-out accuracy, and with knowledge of the answer: the best on the images that it is
read on, which flatters it and which nobody can choose. Each case appends one line of JSON to FILE;
cases that are there are not computed again. docs/probe.md has the table.
"""

import argparse
import dataclasses
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from ckptsel.scores import ScoreInputs
from ckptsel.scores.inputs import VIEWS
from ckptsel.scores.spectrum import compute_spectrum
from ckptsel.target.splits import plan_validation
from tools.json_lines import add_line, read_lines
from tools.probe_cases import Case, made_cases, make, network_cases, network_features

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]

STRENGTHS = np.logspace(-5, 3, 17)
HALF_A_POINT = 0.005


@dataclasses.dataclass(frozen=True)
class Peer:
    """scikit-learn's path: `log_likelihood` and `accuracy` of the inner held-out images at each of
    STRENGTHS, and `correct` (len(STRENGTHS), n_held), whether each image that it is read on is."""

    log_likelihood: Matrix
    accuracy: Matrix
    correct: NDArray[np.bool_]

    def chosen_by_log_likelihood(self) -> int:
        return int(self.log_likelihood.argmax())

    def chosen_by_accuracy(self) -> int:
        return int(self.accuracy.argmax())

    def best_knowing_the_answer(self) -> int:
        return int(self.correct.sum(1).argmax())


def peer_of(features: Matrix, labels: Labels, n: int, view: str, seed: int = 0) -> Peer:
    """scikit-learn on a view of features (n + n_held, d), the first n to fit on."""
    folds = min(5, int(np.bincount(labels[:n]).max()))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    sums = np.zeros((2, len(STRENGTHS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes smaller than the folds; steps that run out
        for fitted, held in splitter.split(features[:n], labels[:n]):
            known = held[np.isin(labels[held], labels[fitted])]
            for i, model in enumerate(_path(features[fitted], labels[fitted], view)):
                log_p, right = _read(model, features[known], labels[known])
                sums[:, i] += log_p.sum(), right.sum()
        models = _path(features[:n], labels[:n], view)
        correct = [_read(model, features[n:], labels[n:])[1] for model in models]
    return Peer(*(sums / n), correct=np.stack(correct))


def _path(features: Matrix, labels: Labels, view: str) -> Iterator[Any]:
    """A fitted function of features at each strength, to log probabilities; and its classes."""
    component = _component(features, view)
    scaler = StandardScaler().fit(component(features))
    inputs = scaler.transform(component(features))
    model = LogisticRegression(max_iter=200, warm_start=True)
    for strength in STRENGTHS:
        model.set_params(C=strength).fit(inputs, labels)
        yield lambda held: (
            model.predict_log_proba(scaler.transform(component(held))),
            model.classes_,
        )


def _component(features: Matrix, view: str) -> Any:
    """The function that gives the view, with the basis of these features."""
    spectrum = compute_spectrum(torch.from_numpy(features))
    return lambda matrix: spectrum.component(torch.from_numpy(matrix), view).numpy()


def _read(model: Any, features: Matrix, labels: Labels) -> tuple[Matrix, NDArray[np.bool_]]:
    """Log probability of the true class (at least that of the smallest number), and whether right."""
    log_p, classes = model(features)
    right = classes[log_p.argmax(1)] == labels
    column = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    log_p = np.maximum(log_p, np.log(np.finfo(float).tiny))
    return log_p[np.arange(len(labels)), column], right


def compare(
    features: NDArray[np.float32], labels: Labels, n: int, views: Iterable[str], paper: bool
):
    """One record a view: accuracies, CPU seconds, and differences with their standard errors."""
    plan = plan_validation(n, len(labels) - n)
    inputs = ScoreInputs(features, labels, plan)
    for view in views:
        start = time.process_time()
        held_out = inputs.held_out(view)
        seconds = time.process_time() - start
        start = time.process_time()
        peer = peer_of(features.astype(np.float64), labels, n, view)
        record = {
            "view": view,
            "C": held_out.details["C"],
            "scaling": held_out.details["scaling"],
            "n_features": held_out.details["n_features"],
            "flags": held_out.flags,
            "seconds": round(seconds, 3),
            "peer_seconds": round(time.process_time() - start, 3),
        }
        ours = held_out.predictions[0] == labels[n:]
        record["accuracy"] = float(ours.mean())
        choices = {
            "peer": peer.chosen_by_log_likelihood(),
            "by_accuracy": peer.chosen_by_accuracy(),
            "knowing": peer.best_knowing_the_answer(),
        }
        for name, i in choices.items():
            record[name] = {"C": float(STRENGTHS[i]), **_beside(ours, peer.correct[i])}
        if paper:
            probe = ScoreInputs(features, labels, plan, probe="paper").held_out(view)
            record["paper"] = _beside(ours, probe.predictions[0] == labels[n:])
        yield record


def _beside(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> dict[str, float]:
    ahead = ours.astype(float) - theirs
    error = ahead.std() / np.sqrt(len(ahead))
    return {"accuracy": float(theirs.mean()), "ahead": float(ahead.mean()), "error": float(error)}


def views_of(case: Case) -> tuple[str, ...]:
    """The features themselves of every case, their components of some."""
    return VIEWS if case.seed % 3 == 0 or case.family == "networks" else VIEWS[:1]


def run(cases: Iterable[Case], out: Path, data: Path) -> None:
    done = {line["name"] for line in read_lines(out)}
    for case in cases:
        if case.name in done:
            continue
        real = case.family == "networks"
        features, labels = network_features(case, data) if real else make(case)
        paper = case.seed % 3 == 0 and case.n * case.d < 200_000
        records = list(compare(features, labels, case.n, views_of(case), paper))
        fields = {**dataclasses.asdict(case), "d": features.shape[1]}
        add_line(out, {"name": case.name, "case": fields, "views": records})
        print(
            case.name,
            *(f"{r['view']} {100 * r['peer']['ahead']:+.1f}" for r in records),
            flush=True,
        )


def is_level(beside: dict[str, float]) -> bool:
    """Ours is ahead, or less than half a point or two standard errors behind."""
    return beside["ahead"] >= -max(HALF_A_POINT, 2 * beside["error"])


def is_behind(beside: dict[str, float]) -> bool:
    """The peer misses by the same rule."""
    return beside["ahead"] > max(HALF_A_POINT, 2 * beside["error"])


def table(lines: list[dict[str, Any]], against: str = "peer") -> str:
    """Markdown: a row for each family and view; differences are ours less theirs, in points."""
    rows = [
        "| features | view | cases | level or ahead | theirs level or ahead | worst | mean difference |"
        " times faster |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    families = list(dict.fromkeys(line["case"]["family"] for line in lines))
    for view in VIEWS:
        for family in (*families, "together"):
            records = [
                record
                for line in lines
                if family in (line["case"]["family"], "together")
                for record in line["views"]
                if record["view"] == view and against in record
            ]
            if records:
                rows.append(_row(family, view, records, against))
    return "\n".join(rows)


def _row(family: str, view: str, records: list[dict[str, Any]], against: str) -> str:
    n = len(records)
    found = [record[against] for record in records]
    ahead = np.array([beside["ahead"] for beside in found])
    error = ahead.std(ddof=1) / np.sqrt(n) if n > 1 else float("nan")
    faster = np.median(
        [record["peer_seconds"] / max(record["seconds"], 1e-3) for record in records]
    )
    return (
        f"| {family} | {view} | {n} | {100 * np.mean([is_level(b) for b in found]):.0f} % "
        f"| {100 * (1 - np.mean([is_behind(b) for b in found])):.0f} % "
        f"| {100 * ahead.min():+.1f} | {100 * ahead.mean():+.2f} ± {100 * error:.2f} "
        f"| {faster:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--families", nargs="*", help="only these")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.table:
        # Across the families, so that a run that was cut short says something of each.
        cases = sorted([*made_cases(), *network_cases()], key=lambda case: case.seed)
        wanted = [c for c in cases if not arguments.families or c.family in arguments.families]
        run(wanted, arguments.out, arguments.data)
    lines = read_lines(arguments.out)
    for against in ("peer", "by_accuracy", "knowing", "paper"):
        print(f"\n{against}\n\n{table(lines, against)}")


if __name__ == "__main__":
    main()
