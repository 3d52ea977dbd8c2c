"""Classes of new images by the probe of a ranking, which is fitted anew.

It is fitted on all images that the ranking fitted on, in the scaling and with the strength that
cross-validation inside them chooses, with the ranking's seed. Where a split was held out, that is the
probe that was scored; where the ranking cross-validated, it is one on all of its images.
"""

import numpy as np
from numpy.typing import NDArray

from ckptsel.features.candidate import Candidate
from ckptsel.ranking.workspace import Workspace
from ckptsel.scores import ScoreInputs
from ckptsel.target.splits import plan_validation


def probabilities_of(
    features: NDArray[np.float32], candidate: Candidate, workspace: Workspace
) -> NDArray[np.float32]:
    """Of new images with features (N, D): (N, C), of the classes of the workspace's target."""
    target, settings = workspace.target, workspace.settings
    fitted = target.evaluation.fit_part
    inputs = ScoreInputs(
        np.concatenate([workspace.features(candidate)[fitted], features]),
        np.concatenate([target.labels[fitted], np.zeros(len(features), dtype=np.int64)]),
        plan_validation(len(fitted), len(features)),
        settings.energy,
        settings.probe,
        settings.seed,
        workspace.device,
    )
    ((_, log_p),) = inputs.log_probabilities("all")
    return log_p.exp().float().cpu().numpy()
