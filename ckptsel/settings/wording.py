"""What is said of a value that does not fit: what was found, and what to give instead."""

import math
import os
from collections.abc import Mapping
from typing import Any

LONGEST = 80
"""Letters of a value that a message shows."""


def found(value: Any, kind: str) -> str:
    """A value as a message shows it. kind: the JSON type of the values that are right."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _short(repr(value)) if kind == "string" else f"the text {_short(repr(value))}"
    if isinstance(value, float):
        said = str(value).removesuffix(".0")
        return said if math.isfinite(value) else f"{said} (not a finite number)"
    if isinstance(value, list | tuple):
        return _short(", ".join(found(v, "string") for v in value)) or "an empty list"
    if isinstance(value, Mapping):
        return "a table"
    return _short(str(os.fspath(value) if isinstance(value, os.PathLike) else value))


def wanted(schema: Mapping[str, Any]) -> str:
    """What values a JSON schema takes: 'it must be a whole number, at least 1'.

    The schema's own description, where it has one, is that clause.
    """
    return str(schema.get("description") or f"it must be {_wanted(schema)}")


def _wanted(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    kind = schema.get("type")
    if kind == "integer":
        return f"a whole number{_bounds(schema, whole=True)}"
    if kind == "number":
        return f"a number{_bounds(schema)}"
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        items = schema["items"]
        if items.get("type") == "number":
            return f"one or more numbers{_bounds(items)}"
        if items.get("type") == "integer":
            return f"one or more whole numbers{_bounds(items, whole=True)}"
        return "one or more names, separated by commas"
    return "a path" if schema.get("format") == "path" else "a text that is not empty"


def _bounds(schema: Mapping[str, Any], whole: bool = False) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high if whole else format(high, 'g')}"
    if above is not None and below is not None:
        return f" between {above:g} and {below:g}, both excluded"
    if low is not None and below is not None:
        return f" from {low:g} to below {below:g}"
    if low is not None:
        return f", at least {low:g}"
    return "" if above is None else f" above {above:g}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
