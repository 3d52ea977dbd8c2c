"""`ridge_probe`: held-out accuracy of ridge regression on one-hot labels.

Features less their mean, divided by their root mean square, are fitted as `ckptsel.scores.ridge` says;
an image is of the class with the highest output. How strongly it is regularised is chosen by leaving
out each image of the fitting part in turn, for which there is a formula, so that one decomposition of
the smaller of (n, n) and (D, D) is all that it takes. It is what layers of many widths are compared by.

Source: Hoerl and Kennard 1970; leaving one out: Allen 1974.
"""

from ckptsel.common.devices import few_threads
from ckptsel.results.scores import ScoreResult
from ckptsel.scores.accuracy import held_out_accuracy
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.ridge import fit_ridge
from ckptsel.scores.rows import Rows
from ckptsel.scores.score import Score


def _score(inputs: ScoreInputs) -> ScoreResult:
    predictions, strengths = inputs.no_predictions(), set()
    with few_threads(inputs.features.numel()):
        for fold in inputs.folds():
            ridge = fit_ridge(
                Rows.at(inputs.features, fold.fit_rows),
                inputs.labels[fold.fit_rows],
                inputs.n_classes,
            )
            held = ridge.classes(Rows.at(inputs.features, fold.held_rows))
            predictions[fold.repeat, fold.columns] = held.cpu().numpy()
            strengths.add(ridge.strength)
    return held_out_accuracy(inputs, predictions, details={"C": sorted(strengths)})


SCORE = Score(
    name="ridge_probe",
    about="held-out accuracy of ridge regression on the features",
    unit="accuracy",
    compute=_score,
    by_default=False,
    streams=True,
    source="Hoerl and Kennard 1970; strength by leaving one out: Allen 1974",
)
