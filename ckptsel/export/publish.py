"""What `pick` writes for others: the model card, and everything on the hub."""

import tempfile
from pathlib import Path
from typing import Any

from ckptsel.common.files import write_text
from ckptsel.errors import OutputError
from ckptsel.export.backbone import export
from ckptsel.export.card import RANKED_WITH, WEIGHTS_NAME, card_text, draw_picture
from ckptsel.export.hub import push
from ckptsel.results.ranking import Ranking, Row


def write_card(
    path: Path, ranking: Ranking, row: Row, arrays: dict[str, Any], weights: Path | None = None
) -> None:
    """The card, and its picture beside it. weights: the file that they were written to, if they were.

    Raises OutputError where something else lies there.
    """
    if path.is_file() and RANKED_WITH not in path.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(
            f"{path} is there, and is no model card of ckptsel: it would be lost. Choose another name, "
            "or remove it."
        )
    picture = draw_picture(path.parent, ranking, arrays)
    name = WEIGHTS_NAME if weights is None else weights.name
    write_text(path, card_text(ranking, row, picture, weights=name))


def publish(
    repo: str,
    ranking: Ranking,
    row: Row,
    arrays: dict[str, Any],
    model: str | None = None,
    public: bool = False,
) -> str:
    """Push weights, card and picture to `ORG/NAME`; gives the commit's address. Raises as `export` and
    `push`."""
    with tempfile.TemporaryDirectory(prefix="ckptsel-hub-") as temporary:
        folder = Path(temporary)
        export(ranking, row, folder / WEIGHTS_NAME, model)
        picture = draw_picture(folder, ranking, arrays)
        write_text(folder / "README.md", card_text(ranking, row, picture, repo))
        return push(folder, repo, public)
