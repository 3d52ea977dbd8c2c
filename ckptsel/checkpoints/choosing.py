"""Which weights of a file are meant: by what the user asked for, and what the file holds.

A file holds state dicts under keys (`model`, `ema`, `optimizer`), sometimes keys below keys. A state
dict can hold two networks of the same layout, one of them an average of the other (MoCo's `encoder_q`
and `encoder_k`, BYOL's `online` and `target`): they are told apart by the first part of their names.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ckptsel.checkpoints.modules import contents_of, is_module
from ckptsel.checkpoints.pickles import NumpyArray, Unknown
from ckptsel.checkpoints.tensors import NOT_DENSE, StoredTensor
from ckptsel.errors import CheckpointError, listed

Tensors = dict[str, StoredTensor]

TEACHER_KEYS = ("teacher", "teacher_state_dict", "teacher_model", "model_teacher")
MOMENTUM_KEYS = ("momentum_encoder", "encoder_k", "target_network", "target_encoder", "target")
EMA_KEYS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "model_ema_state_dict"),
    *("ema_model_state_dict", "averaged_model", "swa_model", "ema", "shadow"),
)
AVERAGED_KEYS = (*EMA_KEYS, *TEACHER_KEYS, *MOMENTUM_KEYS)
STUDENT_KEYS = ("student", "student_state_dict", "student_model", "model_student")
ONLINE_KEYS = ("online_network", "online_encoder", "online", "encoder_q", "base_encoder")
RAW_KEYS = (
    *("state_dict", "model", "model_state_dict", "model_state", "model_dict", "model_weights"),
    *("net_state_dict", "net_state", "net_dict", "student", "net", "network", "weights", "params"),
    *("module", "model_params", "modelstate", "parameters", *STUDENT_KEYS, *ONLINE_KEYS),
)
WEIGHTS_CHOICES: dict[str, tuple[str, ...]] = {
    "auto": (*EMA_KEYS, *TEACHER_KEYS, *RAW_KEYS),
    "raw": RAW_KEYS,
    "ema": AVERAGED_KEYS,
    "teacher": (*TEACHER_KEYS, *MOMENTUM_KEYS),
    "momentum": (*MOMENTUM_KEYS, *TEACHER_KEYS),
    "target": (*MOMENTUM_KEYS, *TEACHER_KEYS),
    "student": (*STUDENT_KEYS, *ONLINE_KEYS),
    "online": (*ONLINE_KEYS, *STUDENT_KEYS),
}
"""Where the weights lie in a file, by what the user asked for; the first key that is there, in capitals
or not."""

SWAPPED = (
    ({"state_dict", "current_model_state", "averaging_state"}, "current_model_state"),
    ({"state_dict", "meta", "ema_state_dict"}, "ema_state_dict"),
)
"""Where raw weights lie in files that have these keys (Lightning's weight averaging, MMEngine's
EMAHook), whose `state_dict` is the average."""

AVERAGED_CHOICES = ("ema", "teacher", "momentum", "target")
RAW_CHOICES = ("raw", "student", "online")

BESIDE = re.compile(
    r"optim|sched|scaler|rng|random_state|criterion|loss|hyper_?param|hparams|callbacks|loops"
    r"|averaging_state|(args|opts?|config|cfg|meta|metadata|amp|sampler)$",
    re.IGNORECASE,
)
"""Keys of what lies beside weights and holds tensors too."""

HEADS = re.compile(r"(heads?|\w+_head|projector|projection\w*|predictor|proj|classifier)$", re.I)
TRUNK = re.compile(r"(backbone|trunk|feature_extractor)$", re.IGNORECASE)

AVERAGED_PART = re.compile(
    r"teacher|momentum|(^|[._])ema([_.]|$)|(^|\.)target|encoder_k($|\.)|key_encoder",
    re.IGNORECASE,
)
"""The first part of the names of a network that is an average of another."""

WRAPPERS = ("module.", "_orig_mod.", "_module.")
"""Prefixes of DataParallel, torch.compile and Opacus, which say nothing about the model."""

INNER_WRAPPERS = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that wrappers of torch put in at any depth."""

COUNTERS = ("n_averaged", "steps")
"""Of what was averaged: torch's and MMEngine's."""

WEIGHT_NAMES = re.compile(r"(weight|bias|kernel|running_mean|running_var|_[wb])$")

LONGEST_KEY = 60
"""Letters of a key that a message shows."""

DEPTH = 4
"""Keys below keys in which state dicts are looked for."""


class NotWeightsError(CheckpointError):
    """A file that is whole and is no checkpoint."""


class OptimizerError(NotWeightsError):
    """An optimiser's state alone, as it lies beside checkpoints."""


class UndecidedError(CheckpointError):
    """A file holds several networks, and nothing says which is meant. choices: their keys."""

    def __init__(self, *lines: str, choices: tuple[str, ...]) -> None:
        super().__init__(*lines)
        self.choices = choices


def choose_weights(payload: Mapping[str, Any], weights: str) -> tuple[str, Tensors]:
    """(key, tensors) by what was asked for; names without what wrappers put into them.

    Raises CheckpointError naming what is there, UndecidedError where several networks are.
    """
    there = _state_dicts(payload)
    raw = next((key for keys, key in SWAPPED if keys <= payload.keys()), None)
    if raw is not None and weights in ("auto", "raw", "ema"):
        weights = raw if weights == "raw" else "state_dict"
    key = _asked_key(there, weights)
    if key is None and weights not in WEIGHTS_CHOICES:
        return _named_part(payload, there, weights)
    if key is None:
        key = _only_key(payload, there, weights)
    chosen = strip_wrappers(_checked(payload, key, there[key]))
    return key, _branch(chosen, weights)


def strip_wrappers(state_dict: Tensors) -> Tensors:
    """Without the wrappers' prefixes, as often as most of the names begin with one, without those
    that lie inside names, and without the counters of averages."""
    bare = {INNER_WRAPPERS.sub("", name): tensor for name, tensor in state_dict.items()}
    state_dict = bare if len(bare) == len(state_dict) else state_dict
    while True:
        for prefix in WRAPPERS:
            if 2 * sum(name.startswith(prefix) for name in state_dict) > len(state_dict):
                state_dict = {name.removeprefix(prefix): t for name, t in state_dict.items()}
                break
        else:
            kept = {name: t for name, t in state_dict.items() if name not in COUNTERS}
            return kept or state_dict


def tensors_in(value: Mapping[Any, Any]) -> Tensors:
    """Tensors by name; arrays of NumPy where their names are those of weights, since they hold data
    as often."""
    named = {key: each for key, each in value.items() if isinstance(key, str)}
    found = {key: each for key, each in named.items() if isinstance(each, StoredTensor)}
    arrays = {key: each.tensor for key, each in named.items() if isinstance(each, NumpyArray)}
    if not found and any(WEIGHT_NAMES.search(key) for key in arrays):
        found = {key: tensor for key, tensor in arrays.items() if tensor is not None}
    return found


def holds_tensors(payload: Mapping[Any, Any]) -> bool:
    """Whether there is a state dict in it."""
    return bool(_state_dicts(payload))


def is_average(weights_key: str) -> bool:
    """Whether a key, or the prefix that is recorded with it, is one of averaged weights."""
    parts = weights_key.lower().split(":")
    return any(part in AVERAGED_KEYS or AVERAGED_PART.search(part) for part in parts)


def module_under(payload: Mapping[str, Any], key: str) -> str | None:
    """The class of the whole pickled module that lies under a key; None where none does."""
    value = _under(payload, key)
    return value.full_name if isinstance(value, Unknown) and is_module(value) else None


def _state_dicts(
    payload: Mapping[Any, Any], prefix: str = "", depth: int = 0
) -> dict[str, Tensors]:
    """Tensors by the key that they lie under, "" for the payload itself. Single numbers alone are
    weights only under a key that is one of weights; elsewhere they are a loss or an accuracy."""
    own = tensors_in(payload)
    called_so = prefix.removesuffix(".").lower() in (*AVERAGED_KEYS, *RAW_KEYS)
    is_state_dict = any(called_so or t.kind != "dense" or t.n_values > 1 for t in own.values())
    found = {prefix.removesuffix("."): own} if is_state_dict else {}
    if depth < DEPTH and not (is_state_dict and prefix):
        for key, value in payload.items():
            if isinstance(key, str) and not BESIDE.search(key):
                held = contents_of(value)
                if held is not None and held is not payload:
                    found.update(_state_dicts(held, f"{prefix}{key}.", depth + 1))
    return found


def _asked_key(there: Mapping[str, Tensors], weights: str) -> str | None:
    """The key that a choice or a key means: the whole of it, else its last part."""
    for wanted in WEIGHTS_CHOICES.get(weights, (weights.lower(),)):
        for is_whole in (True, False):
            for key in there:
                if key and wanted == (key if is_whole else key.rpartition(".")[2]).lower():
                    return key
    return None


def _only_key(payload: Mapping[str, Any], there: dict[str, Tensors], weights: str) -> str:
    """The key of the only state dict, or of the trunk among heads. Raises as `choose_weights`."""
    if "" in there:
        keys = [""]
    else:
        keys = list(there)
        trunks = [key for key in keys if TRUNK.search(key)]
        if len(trunks) == 1 and all(HEADS.search(key) for key in keys if key not in trunks):
            keys = trunks
    if not keys:
        raise _nothing_in(payload)
    can_be = weights in ("auto", "raw") or _has_branch(there[keys[0]], weights)
    if len(keys) == 1 and can_be:
        return keys[0]
    choices = tuple(key for key in there if key)
    if weights in ("auto", "raw"):
        raise UndecidedError(
            f"it holds {len(choices)} networks, under the keys {_listed(choices)}: say which with "
            f"--weights, as in --weights {_listed(choices[:1])}.",
            choices=choices,
        )
    raise _no_such(choices, weights)


def _listed(keys: Sequence[str]) -> str:
    return listed([key[:LONGEST_KEY] for key in keys])


def _no_such(choices: tuple[str, ...], weights: str) -> CheckpointError:
    has = _listed(choices) or "only one plain state dict (--weights raw)"
    return CheckpointError(f"it has no weights for --weights {weights}; it has {has}.")


def _nothing_in(payload: Mapping[str, Any]) -> CheckpointError:
    keys = [str(key) for key in payload] or ["none"]
    if set(keys) == {"state", "param_groups"}:
        return OptimizerError("it holds the state of an optimiser alone, and no network.")
    if any("_packed_params" in key for key in keys):
        return CheckpointError(f"it {NOT_DENSE['quantised']}")
    return NotWeightsError(f"it holds no state dict: its keys are {_listed(keys)}.")


def _named_part(
    payload: Mapping[str, Any], there: dict[str, Tensors], weights: str
) -> tuple[str, Tensors]:
    """The network whose tensors' names begin with what was asked for, in the one state dict."""
    for key, tensors in there.items():
        chosen = strip_wrappers(_checked(payload, key, tensors))
        part = {name: t for name, t in chosen.items() if name.startswith(f"{weights}.")}
        if part:
            return key, part
    raise _no_such(tuple(key for key in there if key), weights) if there else _nothing_in(payload)


def _checked(payload: Mapping[str, Any], key: str, tensors: Tensors) -> Tensors:
    """Raises CheckpointError where something among the weights is no tensor and would have to be run."""
    for name, value in (contents_of(_under(payload, key)) or {}).items():
        if (
            isinstance(value, Unknown)
            and (key or "." in str(name))
            and not str(name).endswith("_extra_state")
        ):
            raise CheckpointError(
                f"refused: {str(name)[:100]}, among its weights, is made by {value.full_name[:100]}, "
                "which would have to be run. Nothing was run. Where you trust the file, load it "
                "yourself and save its tensors alone: safetensors.torch.save_file("
                "model.state_dict(), 'weights.safetensors')."
            )
    return tensors


def _under(payload: Mapping[str, Any], key: str) -> Any:
    """What lies under a key as `_state_dicts` writes it."""
    value: Any = payload
    while key:
        held: Mapping[Any, Any] = contents_of(value) or {}
        names = [n for n in held if isinstance(n, str) and (key == n or key.startswith(f"{n}."))]
        if not names:
            return None
        name = max(names, key=len)
        value, key = held[name], key[len(name) + 1 :]
    return value


def _branch(tensors: Tensors, weights: str) -> Tensors:
    """Of two networks of the same layout, one an average of the other, the one that is meant; both,
    the average last, where nothing was said."""
    starts = tuple(f"{part}." for part in averaged_parts(tensors))
    if not starts:
        return tensors
    average = {name: t for name, t in tensors.items() if name.startswith(starts)}
    other = {name: t for name, t in tensors.items() if name not in average}
    if weights in AVERAGED_CHOICES:
        return average
    return other if weights in RAW_CHOICES else {**other, **average}


def _has_branch(tensors: Tensors, weights: str) -> bool:
    known = weights in (*AVERAGED_CHOICES, *RAW_CHOICES)
    return known and bool(averaged_parts(strip_wrappers(tensors)))


def averaged_parts(tensors: Tensors) -> tuple[str, ...]:
    """First parts of names (one to three words deep) under which an average of another network lies: one
    that is called so, and whose tensors all lie under another part too."""
    tails: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        words = name.split(".")
        for depth in (1, 2, 3):
            if len(words) > depth:
                part, tail = ".".join(words[:depth]), ".".join(words[depth:])
                tails.setdefault(part, {})[tail] = tensor.shape
    called = [part for part in tails if AVERAGED_PART.search(part)]
    others = [set(tails[part].items()) for part in tails if not AVERAGED_PART.search(part)]
    with_twin = [p for p in called if any(set(tails[p].items()) <= other for other in others)]
    outer = [p for p in called if not any(p.startswith(f"{other}.") for other in called)]
    return tuple(outer) if with_twin else ()
