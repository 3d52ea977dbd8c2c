"""Hooks of the site's build (see mkdocs.yml).

Pages link to files elsewhere in the repository as the repository itself shows them
(`../reference_runs/README.md`). Files linked so become part of the site, and the links follow.
"""

import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
TAKEN_ALONG = ("CHANGELOG.md",)
"""Pages of the site that no page of docs/ need link to."""

LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)(#[^)]*)?\)")
"""[text](target#anchor), of a target that is no address."""

FETCHED = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
)

log = logging.getLogger("mkdocs.plugins.ckptsel")


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside of docs/ that its pages link to."""
    wanted = [
        *TAKEN_ALONG,
        *(uri for file in files.documentation_pages() for uri in _outside(file)),
    ]
    while wanted:
        uri = wanted.pop()
        if files.get_file_from_path(uri) is None:
            file = File.generated(
                config, uri, abs_src_path=str(ROOT / uri), inclusion=InclusionLevel.NOT_IN_NAV
            )
            files.append(file)
            wanted += _outside(file) if file.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **kwargs: Any) -> str:
    """Links between docs/ and the rest of the repository, as links within the site.

    A link to a folder, which has no page, becomes its text.
    """
    folder = posixpath.dirname(page.file.src_uri)

    def follow(match: re.Match[str]) -> str:
        text, target, anchor = match.groups(default="")
        path = _in_repository(page.file, target)
        uri = path.removeprefix("docs/")
        if files.get_file_from_path(uri) is not None:
            return f"[{text}]({posixpath.relpath(uri, folder)}{anchor})"
        return text if (ROOT / path).is_dir() else match.group(0)

    return LINK.sub(follow, markdown)


def on_post_page(output: str, page: Any, **kwargs: Any) -> str:
    """Warn of anything that a browser would fetch from another host."""
    for address in FETCHED.findall(output):
        log.warning(f"{page.file.src_uri} fetches {address}")
    return output


def _outside(file: File) -> Iterator[str]:
    """Files outside of docs/ that a page links to, by their path in the repository."""
    for _, target, _ in LINK.findall(file.content_string):
        path = _in_repository(file, target)
        if not path.startswith("docs/") and (ROOT / path).is_file():
            yield path


def _in_repository(file: File, target: str) -> str:
    """The path in the repository that a link of a page points to."""
    is_docs = (ROOT / "docs" / file.src_uri).is_file()
    source = posixpath.join("docs", file.src_uri) if is_docs else file.src_uri
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
