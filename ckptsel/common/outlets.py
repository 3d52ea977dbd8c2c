"""Names are shown, never obeyed: one function for each place where a text of a stranger goes.

Names of files, tensors and classes, and messages that quote them, may hold anything. Where a text goes
decides what could be obeyed there, so it is made harmless there and nowhere before: data keeps it as it
is. What would be obeyed or would hide something is written visibly, as Python writes it (`\\n`,
`\\x1b`, `\\u202e`).

| function | for |
| --- | --- |
| `shown` | people: tables and lines of a terminal, a log, a page |
| `harmless` | all of stdout and stderr, after `shown`: what CI systems read there |
| `markdown` | Markdown: a paragraph, a cell, a heading |
| `csv_cell` | CSV that a spreadsheet may open |
| `json_text` | JSON on stdout; loses nothing |
| `annotation` | an annotation of GitHub Actions |
| `exact` | a shell, or a step's output: as it is, or refused |

XML and HTML take `shown` too, and their writers (ElementTree, Jinja) quote the rest.
"""

import json
import re
import sys
import unicodedata
from typing import Any

from ckptsel.errors import OutputError

MAX_CELL = 500
"""Characters of a cell that people read. No file system has names that long; a made-up one may be."""

MAX_LINE = 4_000
"""Characters of a line that people read."""

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what has no picture of its own: controls, formats (directions, zero width),
lone surrogates (bytes of a name that are no UTF-8), line and paragraph separators."""

NO_CHARACTER = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")
"""What Unicode will never assign, and XML forbids in part."""

RUNNER_COMMAND = re.compile(r"^(\s*)::|##(?=[\w.-]*\[)", re.MULTILINE)
"""What a runner obeys in a log: `::error::` at the start of a line, whatever blanks stand before it
(GitHub); `##[error]` (GitHub, older form), `##vso[...]` (Azure) and `##teamcity[...]` anywhere."""

FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")  # noqa: RUF001 - the wide forms count as well

MARKDOWN = re.compile(
    r"[\\`*<&|~$]"  # code, emphasis, HTML, entities, cells, strike-through, mathematics
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, but not inside a word: linear_probe
    r"|\](?=[\[(:])"  # links, images, footnotes; [0.1, 0.2] stays
    r"|(?<=\w)[:](?=//)|(?<=www)\.",  # addresses that become links of themselves
    re.IGNORECASE,
)

MARKDOWN_START = re.compile(r"[#>]|[-+=](?=[-+=\s]|$)|\d+(?=[.)](?:\s|$))")
"""What begins a heading, a quotation or a list; -0.5 and 89.6 do not."""


def shown(text: str, most: int | None = MAX_LINE) -> str:
    """One line for people's eyes: what cannot be seen is written visibly, line breaks too.

    most: of a longer text the middle is left out; None keeps it whole.
    """
    text = _cut(str(text), most)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(c) if _is_unseen(c) else c for c in text)


def harmless(text: str) -> str:
    """Whole lines for stdout or stderr, without what the runner of a CI system would obey."""
    return RUNNER_COMMAND.sub(_without_command, text)


def markdown(text: str, most: int | None = MAX_LINE) -> str:
    """A paragraph, heading or cell of a table that shows the text as it is."""
    text = MARKDOWN.sub(r"\\\g<0>", shown(text, most).lstrip())  # four blanks begin a block of code
    start = MARKDOWN_START.match(text)
    if start is None:
        return text
    first, rest = start[0], text[start.end() :]
    return f"{first}\\{rest}" if first.isdecimal() else f"\\{first}{rest}"


def csv_cell(value: Any) -> Any:
    """The value of a cell; numbers and what is missing stay what they are.

    A text that a spreadsheet would take for a formula gets an apostrophe in front. Nothing is cut.
    """
    if not isinstance(value, str):
        return value
    text = shown(value, most=None)
    return f"'{text}" if FORMULA.match(text) else text


def json_text(value: Any) -> str:
    """Indented JSON that ends in a line break; it reads back as exactly the same.

    Raises ValueError for NaN and infinities.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"  # ASCII: nothing unseen is left
    return text.replace("##", "\\u0023#")  # inside strings only, and the same to a reader


def annotation(kind: str, title: str, message: str) -> str:
    """A line that GitHub Actions obeys, and takes title and message from as they are shown."""
    return f"::{kind} title={_data(shown(title), ':,')}::{_data(harmless(shown(message)))}"


def exact(text: str, what: str, instead: str, encoding: str = "utf-8") -> str:
    """The same text, for a reader that takes a line and obeys it: altered it would name another file.

    Raises OutputError where it could not be given as it is. what: names it in the message. instead:
    what to do.
    """
    if harmless(shown(text, most=None)) != text:
        raise OutputError(
            f"{what} is refused, since it holds characters that cannot be seen or would be obeyed: "
            f"{shown(text)}. {instead}"
        )
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        raise OutputError(
            f"{what} cannot be written in {encoding}: {shown(text)}. {instead}"
        ) from None
    return text


def stdout_encoding() -> str:
    """How stdout is encoded."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _cut(text: str, most: int | None) -> str:
    if most is None or len(text) <= most:
        return text
    half = (most - 5) // 2  # both ends tell names apart, the last most of all
    return f"{text[:half]} ... {text[len(text) - half :]}"


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in UNSEEN or NO_CHARACTER.match(character) is not None


def _visible(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _without_command(found: re.Match[str]) -> str:
    return f"{found[1]}:\\x3a" if found[0].endswith("::") else "\\x23#"


def _data(text: str, more: str = "") -> str:
    for character in "%" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
