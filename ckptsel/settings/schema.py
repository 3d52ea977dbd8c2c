"""JSON Schema of the configuration file, for editors, from the fields of the options."""

from collections.abc import Mapping
from typing import Any

from ckptsel.settings.option import Declared
from ckptsel.settings.targets import table_options
from ckptsel.settings.toml import BELOW_GATE, TOP_LEVEL, known_options


def config_schema() -> dict[str, Any]:
    """What `ckptsel.toml` may hold; each name with dashes and with underscores."""
    gate = {"description": "The policy of the gate.", **_table(known_options(BELOW_GATE))}
    target = {**_table(table_options()), "required": ["data"]}
    options = _table(known_options(TOP_LEVEL))
    options["properties"]["gate"] = gate
    options["properties"]["target"] = {
        "description": "One of several targets that are ranked for.",
        "type": "array",
        "items": target,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ckptsel.toml",
        **options,
    }


def _table(known: Mapping[str, Declared]) -> dict[str, Any]:
    properties = {}
    for name, declared in known.items():
        about: dict[str, Any] = {**declared.schema, "description": declared.option.help}
        if "enum" in about.get("items", {}) or about.get("items", {}).get("type") == "string":
            # Names can also be one text, separated by commas.
            about = {
                "anyOf": [about, {"type": "string", "pattern": r"\S"}],
                "description": about.pop("description"),
            }
        if declared.default is not None and not declared.is_required:
            about["default"] = declared.default
        for spelling in dict.fromkeys((name.replace("_", "-"), name)):
            properties[spelling] = about
    return {"type": "object", "properties": properties, "additionalProperties": False}
