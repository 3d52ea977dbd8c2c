"""The README as a package index shows it: there is no repository around it there, so links and pictures
of the repository become addresses, of this version.

hatchling calls it when a wheel or an sdist is built (`tool.hatch.metadata.hooks.custom`).
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")
"""[text](target) or ![text](target), of a target that is no address."""


def with_addresses(text: str, repository: str, version: str) -> str:
    """repository: its address on GitHub."""
    pages = f"{repository}/blob/v{version}"
    files = f"{repository.replace('github.com', 'raw.githubusercontent.com')}/v{version}"
    return LINK.sub(lambda m: f"{m[1]}{m[2]}({files if m[1] else pages}/{m[3]})", text)


class Readme(MetadataHookInterface):
    """Adds the field `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository, version = metadata["urls"]["Repository"], metadata["version"]
        text = with_addresses(text, repository, version)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
