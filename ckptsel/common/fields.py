"""Dataclasses from plain data that may come from another version."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def from_known_fields(cls: type[T], value: Mapping[str, Any]) -> T:
    """An instance of a dataclass; keys that it does not have are left out, lists become tuples."""
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known}
    )
