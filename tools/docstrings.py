"""The docstrings' own form, in which `name: text` sentences explain fields and arguments, as lists.

`FieldLists` is loaded by mkdocstrings (see mkdocs.yml) for the page of the Python API.
"""

import re
from collections.abc import Iterable
from typing import Any

import griffe


def split_docstring(text: str, names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """(what is said of the whole, what is said of each name).

    A name is explained from `name: ` or `name, other: ` at the start of a paragraph or after a
    sentence or clause, up to the next explanation or the end of the paragraph.
    """
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    if not known:
        return text, {}
    pattern = re.compile(rf"(?:^|(?<=[.,;] ))((?:{known})(?:, (?:{known}))*): ")
    whole, fields = [], {}
    for paragraph in text.split("\n\n"):
        joined = paragraph if paragraph.startswith("    ") else " ".join(paragraph.split())
        before, *explained = pattern.split(joined)
        if before:
            whole.append(paragraph if not explained else before)
        for group, explanation in zip(explained[::2], explained[1::2], strict=True):
            explanation, raises = _cut_raises(explanation)
            whole += [raises] if raises else []
            fields.update(dict.fromkeys(group.split(", "), explanation.strip(" ,;.") + "."))
    return "\n\n".join(whole), fields


def _cut_raises(explanation: str) -> tuple[str, str]:
    explanation, _, raises = explanation.partition("Raises ")
    return explanation, f"Raises {raises}" if raises else ""


class FieldLists(griffe.Extension):
    """Shows explanations of fields and arguments as a list below what is said of the whole."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        self._rewrite(cls, [a.name for a in cls.attributes.values()])

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        self._rewrite(func, [p.name for p in func.parameters])

    def _rewrite(self, thing: griffe.Object, names: list[str]) -> None:
        if thing.docstring is None:
            return
        whole, fields = split_docstring(thing.docstring.value, names)
        items = [f"- `{name}`: {text}" for name, text in fields.items()]
        thing.docstring.value = "\n\n".join([whole, "\n".join(items)]) if items else whole
