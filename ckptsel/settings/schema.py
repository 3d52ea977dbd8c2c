"""JSON Schema of the configuration file, for editors, from the fields of the options."""

from typing import Any

from ckptsel.settings.option import Options
from ckptsel.settings.toml import BELOW_GATE, TOP_LEVEL, known_options


def config_schema() -> dict[str, Any]:
    """What `ckptsel.toml` may hold; each name with dashes and with underscores."""
    gate = {"description": "The policy of the gate.", **_table(BELOW_GATE)}
    options = _table(TOP_LEVEL)
    options["properties"]["gate"] = gate
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ckptsel.toml",
        **options,
    }


def _table(groups: tuple[type[Options], ...]) -> dict[str, Any]:
    properties = {}
    for name, declared in known_options(groups).items():
        about: dict[str, Any] = {**declared.schema, "description": declared.option.help}
        if "enum" in about.get("items", {}) or about.get("items", {}).get("type") == "string":
            # Names can also be one text, separated by commas.
            about = {
                "anyOf": [about, {"type": "string", "pattern": r"\S"}],
                "description": about.pop("description"),
            }
        if declared.default is not None:
            about["default"] = declared.default
        for spelling in dict.fromkeys((name.replace("_", "-"), name)):
            properties[spelling] = about
    return {"type": "object", "properties": properties, "additionalProperties": False}
