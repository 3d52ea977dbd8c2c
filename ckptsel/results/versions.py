"""Files of older versions, brought to the layout of this one before they are read."""

from typing import Any

from ckptsel.errors import InputError

FIRST_RANKING = "ckptsel.ranking/1"
FIRST_CONFIRMATION = "ckptsel.confirm/1"

FIRST_UNITS = {
    "linear_probe": "accuracy",
    "linear_probe_loglik": "nats",
    "main_component": "accuracy",
    "residual_component": "accuracy",
    "logme": "nats",
    "logme_thuml": "nats",
}
"""Schema 1 did not record them; plug-ins' scores count as nats."""


def upgrade_ranking(value: dict[str, Any], schema: str) -> dict[str, Any]:
    """A ranking's plain data in the layout of `schema`.

    In schema 1 estimates lay flat beside other keys (`difference`, `low`, `high` of a reference,
    which was called baseline;
    `accuracy`, `low`, `high` of a standing), and units were not recorded.
    Raises InputError for data of another kind, or of a later version.
    """
    found = value.get("schema")
    if found == schema:
        return value
    if found != FIRST_RANKING:
        raise InputError(
            f"this is no ranking that this version reads: schema {found!r}, expected {schema!r}."
        )
    try:
        return {
            **value,
            "schema": schema,
            "units": {
                name: FIRST_UNITS.get(name, "nats")
                for row in value["checkpoints"]
                for name in row["scores"]
            },
            "references": {
                name: _reference(reference, value["score"])
                for name, reference in value["baselines"].items()
            },
            "checkpoints": [_row(row) for row in value["checkpoints"]],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"no ranking that can be read: {type(error).__name__}: {error}."
        ) from error


def upgrade_confirmation(value: dict[str, Any], schema: str) -> dict[str, Any]:
    """The plain data of `confirm.json` in the layout of `schema`; raises as `upgrade_ranking`."""
    found = value.get("schema")
    if found == schema:
        return dict(value)
    if found != FIRST_CONFIRMATION:
        raise InputError(
            f"no confirmation that this version reads: schema {found!r}, expected {schema!r}."
        )
    try:
        goals = {
            goal: {**outcome, "standings": [upgrade_standing(s) for s in outcome["standings"]]}
            for goal, outcome in value["goals"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"no confirmation that can be read: {type(error).__name__}: {error}."
        ) from error
    return {**value, "schema": schema, "goals": goals}


def _reference(value: dict[str, Any], score: str) -> dict[str, Any]:
    ahead = None
    if value["difference"] is not None:
        ahead = {
            "value": value["difference"],
            "low": value["low"],
            "high": value["high"],
            "by": value.get("by", score),
            "step": value.get("step"),
        }
    return {"name": value["name"], "ahead": ahead}


def _row(value: dict[str, Any]) -> dict[str, Any]:
    confirmed = value.get("confirmed")
    if confirmed is not None:
        confirmed = {goal: upgrade_standing(standing) for goal, standing in confirmed.items()}
    by_score = {"score_rank": value["rank"], "score_tie": value["in_tie_set"]}
    return {**by_score, **value, "confirmed": confirmed}


def upgrade_standing(value: dict[str, Any]) -> dict[str, Any]:
    """A standing whose accuracy is an estimate of its own."""
    accuracy = value.get("accuracy")
    if accuracy is None or isinstance(accuracy, dict):
        return value
    bounds = {"value": accuracy, "low": value["low"], "high": value["high"]}
    return {**{k: v for k, v in value.items() if k not in ("low", "high")}, "accuracy": bounds}
