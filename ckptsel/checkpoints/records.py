"""What files record beside the weights: epoch, step, accuracy on the source, architecture."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptsel.checkpoints.modules import contents_of
from ckptsel.checkpoints.pickles import Namespace, NumpyArray
from ckptsel.checkpoints.tensors import StoredTensor
from ckptsel.errors import CheckpointError

EPOCH_KEYS = (
    *("epoch", "n_epoch", "epochs_run", "epoch_num", "epoch_idx", "current_epoch", "cur_epoch"),
    *("last_epoch", "epoch_id", "train_phase_idx"),
)
"""Of epochs that were run, in capitals or not; `epochs` and `num_epochs` are often those planned."""

STEP_KEYS = (
    *(
        "global_step",
        "step",
        "global_steps",
        "iteration",
        "iter",
        "n_iter",
        "iterations",
        "n_iters",
    ),
    *("num_updates", "current_step"),
)

PROGRESS_BELOW = (
    *("meta", "trainer_state", "extra_state", "info", "trainer", "train_state"),
    *("state.timestamp.timestamp", "state.timestamp"),
)
"""Keys, and keys below keys, below which MMEngine, Ignite, Composer and others keep them."""

ACCURACY_KEYS = (
    *("best_acc1", "best_prec1", "best_acc", "best_accuracy", "best_top1", "best_val_acc"),
    *(
        "best_val_accuracy",
        "best_test_acc",
        "best_acc_top1",
        "best_prec",
        "acc",
        "accuracy",
        "acc1",
    ),
    *("top1", "prec1", "top1_acc", "acc_top1", "val_acc", "val_accuracy", "valid_acc", "val_acc1"),
    *("valid_accuracy", "val_top1", "eval_acc", "eval_accuracy", "eval_acc1", "test_acc"),
    *("test_accuracy", "test_acc1", "test_top1"),
)
"""Of accuracy on the source, in capitals or not; in percent or as a fraction, which they do not say."""

ACCURACIES_BELOW = ("metrics", "val_metrics", "best_metrics", "results", "scores", "stats", "logs")

OPTIMIZER_KEYS = (
    *("optimizer", "optimizer_state_dict", "optimizer_states", "optim", "optim_state_dict"),
    *("optimizer_state", "optim_state", "opt", "optimizers", "opt_state_dict"),
    "state.optimizers",
)
SCHEDULER_KEYS = (
    *("lr_scheduler", "lr_schedulers", "scheduler", "scheduler_state_dict", "schedulers"),
    *("lr_scheduler_state_dict", "sched", "lr_sched", "scheduler_state", "param_schedulers"),
    "state.schedulers",
)
"""Of the state dict of an optimizer or a scheduler, of a list of them, or of several by name."""

RATE_KEYS = ("lr", "learning_rate", "current_lr", "cur_lr")

ENOUGH = 3
"""Files whose accuracies, all at most 1, are fractions and no percentages."""


@dataclass(frozen=True)
class Accuracy:
    """An accuracy as it is recorded. key: where. unit: what 100 % is, None where that is not said."""

    value: float
    key: str
    unit: float | None = None


def recorded_progress(
    payload: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[float | None, int | None]:
    """(epoch, step) as stored, None where they are not."""
    epoch = step = None
    for place in (payload, facts, *_below(payload, PROGRESS_BELOW), *_below(facts, PROGRESS_BELOW)):
        by_name = _lowered(place)
        if epoch is None:
            epoch = first_number(*(by_name.get(key) for key in EPOCH_KEYS))
        if step is None:
            step = first_number(*(by_name.get(key) for key in STEP_KEYS))
    return epoch, None if step is None else int(step)


def recorded_accuracy(
    payload: Mapping[str, Any], facts: Mapping[str, Any], name: str
) -> Accuracy | None:
    """Accuracy on the source data, where the file or its name carries one."""
    found = (
        *_with_unit("source_accuracy", 1, facts, payload),
        *_of_timm(payload),
        *_of_its_keys(payload),
        *_in_log(facts.get("trainer_state", {})),
        *_in_name(name),
    )
    return next((accuracy for accuracy in found if 0 <= accuracy.value <= 100), None)


def fractions_of(recorded: Sequence[Accuracy | None]) -> list[float | None]:
    """Each as a fraction, None where it is not known.

    What files do not say is told from all of them: where any value of a key is above 1, that key is in
    percent; where none of ENOUGH files has one, it is a fraction, for no run stays below 1 % as long as
    that. Of fewer files it could be either, and all but 0 are None.
    """
    values: dict[str, list[float]] = {}
    for accuracy in recorded:
        if accuracy is not None and accuracy.unit is None:
            values.setdefault(accuracy.key, []).append(accuracy.value)
    units = {key: _unit_of(known) for key, known in values.items()}
    return [None if a is None else _fraction(a, a.unit or units.get(a.key)) for a in recorded]


def _unit_of(values: Sequence[float]) -> float | None:
    """What 100 % is, where values of one key tell it."""
    if max(values) > 1:
        return 100
    return 1 if len(values) >= ENOUGH else None


def _fraction(accuracy: Accuracy, unit: float | None) -> float | None:
    if unit is None:
        return 0.0 if accuracy.value == 0 else None
    fraction = accuracy.value / unit
    return fraction if 0 <= fraction <= 1 else None


def _with_unit(key: str, unit: float, *places: Mapping[str, Any]) -> Iterator[Accuracy]:
    value = first_number(*(place.get(key) for place in places))
    if value is not None:
        yield Accuracy(value, key, unit)


def _of_timm(payload: Mapping[str, Any]) -> Iterator[Accuracy]:
    """Its `metric`, in percent where it is a top-1 or top-5 accuracy."""
    if "metric" in payload and str(argument(payload, "eval_metric") or "top1").startswith("top"):
        yield from _with_unit("metric", 100, payload)


def _of_its_keys(payload: Mapping[str, Any]) -> Iterator[Accuracy]:
    for place in (payload, *_below(payload, ACCURACIES_BELOW)):
        by_name = _lowered(place)
        for key in ACCURACY_KEYS:
            value = first_number(by_name.get(key))
            if value is not None:
                yield Accuracy(value, key)


def _in_log(trainer_state: Any) -> Iterator[Accuracy]:
    """What Hugging Face's Trainer evaluated at this step."""
    state = trainer_state if isinstance(trainer_state, dict) else {}
    for entry in reversed(_log(state)):
        if "eval_accuracy" in entry and entry.get("step") == state.get("global_step"):
            yield from _with_unit("eval_accuracy", 1, entry)
            return


def _log(trainer_state: Any) -> list[dict[str, Any]]:
    """What Hugging Face's Trainer logged, in the order of training."""
    log = trainer_state.get("log_history") if isinstance(trainer_state, dict) else None
    return [e for e in log if isinstance(e, dict)] if isinstance(log, list) else []


def _in_name(name: str) -> Iterator[Accuracy]:
    match = re.search(r"(?:acc|accuracy|acc1|top1)=(\d*\.\d+)", name)
    if match and float(match.group(1)) <= 1:
        yield Accuracy(float(match.group(1)), "name", 1)
    elif match:
        yield Accuracy(float(match.group(1)), "name", 100)


def recorded_learning_rate(payload: Mapping[str, Any], facts: Mapping[str, Any]) -> float | None:
    """The learning rate when a file was saved: of the optimizer, else of its scheduler, else as a value
    of its own, else as Hugging Face's Trainer logged it last; None where none is recorded.

    What a command line asked for (`args.lr`) is the rate at the start, and does not count.
    """
    found = (
        *_rates(payload, OPTIMIZER_KEYS, _of_optimizer),
        *_rates(payload, SCHEDULER_KEYS, _of_scheduler),
        *(_lowered(place).get(key) for place in (payload, facts) for key in RATE_KEYS),
        *(entry.get("learning_rate") for entry in reversed(_log(facts.get("trainer_state")))),
    )
    rate = first_number(*found)
    return None if rate is None or rate < 0 else float(rate)


def _rates(
    payload: Mapping[str, Any],
    keys: Sequence[str],
    of_one: Callable[[Mapping[Any, Any]], list[Any]],
) -> Iterator[float]:
    """The highest rate of each place: groups have rates of their own (a new head a higher one), which
    a schedule scales together."""
    for held in _below(payload, keys):
        several = [one for value in held.values() if (one := contents_of(value)) is not None]
        rates = [first_number(rate) for one in (held, *several) for rate in of_one(one)]
        known = [rate for rate in rates if rate is not None]
        if known:
            yield max(known)


def _of_optimizer(state: Mapping[Any, Any]) -> list[Any]:
    return [g.get("lr") for g in _list_in(state, "param_groups") if isinstance(g, Mapping)]


def _of_scheduler(state: Mapping[Any, Any]) -> list[Any]:
    return _list_in(state, "_last_lr")


def _list_in(state: Mapping[Any, Any], key: str) -> list[Any]:
    held = state.get(key)
    return list(held) if isinstance(held, list | tuple) else []


def recorded_arch(payload: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """Architecture that was recorded; not always a name that timm knows."""
    config = facts.get("config", {})
    candidates = (
        facts.get("arch"),
        config.get("architecture"),
        payload.get("arch"),
        argument(payload, "model"),
        argument(payload, "arch"),
        *_classes_of(config),
    )
    return next((name for name in candidates if isinstance(name, str)), None)


def _classes_of(config: Mapping[str, Any]) -> list[Any]:
    """Names of transformers' classes, which say what a folder is; nothing is looked up by them."""
    names = config.get("architectures")
    return names if isinstance(names, list) else []


def argument(payload: Mapping[str, Any], name: str) -> Any:
    """A command-line argument that the training script stored, as a Namespace or a dict."""
    arguments = payload.get("args")
    if isinstance(arguments, Namespace):
        return arguments.attributes.get(name)
    return (contents_of(arguments) or {}).get(name)


def first_number(*values: Any) -> float | None:
    """The first finite number among them, or text of one."""
    for value in values:
        if isinstance(value, NumpyArray):
            value = value.number
        try:
            if isinstance(value, StoredTensor) and value.n_values == 1:
                value = value.item()
            number = float(value)
        except (TypeError, ValueError, OverflowError, CheckpointError):
            continue
        if math.isfinite(number) and not isinstance(value, bool):
            return int(number) if number.is_integer() else number
    return None


def _below(payload: Mapping[Any, Any], keys: Sequence[str]) -> Iterator[Mapping[Any, Any]]:
    for path in keys:
        held: Mapping[Any, Any] | None = payload
        for key in path.split("."):
            held = None if held is None else contents_of(_lowered(held).get(key))
        if held is not None:
            yield held


def _lowered(payload: Mapping[Any, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in payload.items() if isinstance(key, str)}
