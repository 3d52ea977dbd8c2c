"""A ranking in MLflow."""

import os
import re
import time
from pathlib import Path

from ckptsel.trackers.entry import PREFIX, Entry

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Where the user says nothing else: its own would try a server that is gone for many minutes."""

LONGEST = 250
"""Letters of a tag that any of its stores keeps in one piece."""

NOT_IN_NAMES = re.compile(r"[^\w./: -]")


def log(entry: Entry, folder: Path) -> str:
    """Log to the server, the experiment and the run that MLflow's own environment variables name
    (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, MLFLOW_RUN_ID); gives where. A run that is named is
    added to, else a new one is made.
    """
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)

    import mlflow
    from mlflow.entities import Metric

    with mlflow.start_run(run_name=None if "MLFLOW_RUN_ID" in os.environ else PREFIX) as run:
        client, run_id = mlflow.MlflowClient(), run.info.run_id
        now = int(1000 * time.time())
        metrics = [
            Metric(NOT_IN_NAMES.sub("_", name), value, now, step)
            for step, values in entry.points
            for name, value in values.items()
        ]
        for start in range(0, len(metrics), 1000):  # more it does not take at once
            client.log_batch(run_id, metrics=metrics[start : start + 1000])
        facts = {"best": entry.best or "none is recommended", **entry.facts}
        facts |= {"axis": entry.axis, "ranking": entry.sentence}
        mlflow.set_tags({f"{PREFIX}.{name}": text[:LONGEST] for name, text in facts.items()})
        for path in entry.files:
            mlflow.log_artifact(str(path), PREFIX)
    return f"run {run_id} at {mlflow.get_tracking_uri()}"
