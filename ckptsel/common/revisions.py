"""Revisions of one model of the Hugging Face Hub, as a run: `hf://org/model@{step1000,step2000,v*}`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ckptsel.errors import InputError, UsageError, listed

SEVERAL = re.compile(r"hf://([^/@{}]+/[^/@{}]+)@\{(.*)", re.DOTALL)

LONGEST = 150
"""Characters of the list: it is the name of a folder here."""


@dataclass(frozen=True)
class Revisions:
    """Names of branches, tags and commits of a repository; with * and ? patterns of the first two."""

    repo: str
    names: tuple[str, ...]

    @property
    def has_patterns(self) -> bool:
        return any(map(_is_pattern, self.names))

    def among(self, there: Sequence[str]) -> list[str]:
        """Those that are meant, each once. there: all branches and tags.

        Raises InputError for a pattern that none of them fits.
        """
        found: dict[str, None] = {}
        for name in self.names:
            fitting = [each for each in there if fnmatchcase(each, name)]
            if _is_pattern(name) and not fitting:
                has = f"its branches and tags are {listed(there)}" if there else "it has none"
                raise InputError(f"no revision of hf://{self.repo} fits {name}: {has}.")
            found |= dict.fromkeys(fitting if _is_pattern(name) else [name])
        return list(found)

    def address(self, name: str) -> str:
        """Of one of them."""
        return f"hf://{self.repo}@{name}"


def revisions_in(url: str) -> Revisions | None:
    """The revisions that an address names; None where it names no list of them.

    Raises UsageError for a list that is none.
    """
    found = SEVERAL.fullmatch(url)
    if found is None:
        return None
    inside, closed, behind = found[2].partition("}")
    names = tuple(name.strip() for name in inside.split(","))
    if not closed or behind or not all(names):
        raise UsageError(
            f"{url} must end with a list of revisions, hf://ORG/MODEL@{{step1000,step2000}}, or with "
            "patterns of their names, @{step*}; in quotes, since a shell reads braces."
        )
    if any("/" in name or name in (".", "..") for name in names) or len(inside) > LONGEST:
        raise UsageError(
            f"{url}: a list of revisions has at most {LONGEST} characters, and none with a / in its "
            "name. Patterns are shorter: @{step*}."
        )
    return Revisions(found[1], names)


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name
