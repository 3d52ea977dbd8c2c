"""A ranking in a notebook: what it says, and its rows with their scores."""

import html
from collections.abc import Iterable

from ckptsel.common.outlets import shown
from ckptsel.results.estimate import percent
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.summary import summary


def ranking_html(ranking: Ranking) -> str:
    """A paragraph and a table."""
    names = list(dict.fromkeys(name for row in ranking for name in row.scores))
    head = ("rank", "checkpoint", "epoch", *names, "P(best)")
    rows = [
        (
            "failed" if row.rank is None else str(row.rank) + "=" * row.in_tie_set,
            row.name,
            "" if row.epoch is None else f"{row.epoch:g}",
            *(_score(ranking, row, name) for name in names),
            "" if row.p_best is None else f"{row.p_best:.2f}",
        )
        for row in ranking
    ]
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return (
        f"<p>{_html(summary(ranking))}</p>"
        f"<table><thead><tr>{_cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
    )


def _score(ranking: Ranking, row: Row, score: str) -> str:
    if score not in row.scores:
        return ""
    value = row.scores[score]
    return percent(value) if ranking.is_accuracy(score) else f"{value.value:.3f}"


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{_html(text)}</{tag}>" for text in texts)


def _html(text: str) -> str:
    return html.escape(shown(text))
