"""The version and the repository of `pyproject.toml`, written wherever else they stand.

    python -m tools.release            # write
    python -m tools.release --check    # exit 1 where something is not current

To release: set `version` there, name the version and the day in CHANGELOG.md, run this, commit, and
push the tag `v<version>`; `.github/workflows/release.yml` does the rest.
"""

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]

USES = re.compile(r"[\w.-]+/ckptsel@v[\w.]+")
"""The action, as a workflow uses it."""

PINNED = re.compile(r"ckptsel==[\w.]+")


def read_project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def project() -> tuple[str, str]:
    """(version, owner/name) as pyproject.toml has them."""
    about = read_project()
    repository = about["urls"]["Repository"].removeprefix("https://github.com/")
    return about["version"], repository


def current(text: str) -> str:
    """A text with the version and the repository that hold now."""
    version, repository = project()
    text = USES.sub(f"{repository}@v{version}", text)
    return PINNED.sub(f"ckptsel=={version}", text)


def outdated() -> list[Path]:
    """Files that say something else."""
    files = [ROOT / "README.md", ROOT / "action.yml", *sorted((ROOT / "docs").glob("*.md"))]
    return [path for path in files if current(text := path.read_text(encoding="utf-8")) != text]


def newest_change() -> str:
    """The version that CHANGELOG.md begins with."""
    found = re.search(
        r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1] if found else ""


def main() -> None:
    files = outdated()
    if "--check" not in sys.argv:
        for path in files:
            path.write_text(current(path.read_text(encoding="utf-8")), encoding="utf-8")
        return
    if files:
        sys.exit(f"not current: {', '.join(path.name for path in files)}: python -m tools.release")
    if newest_change() != project()[0]:
        sys.exit(f"CHANGELOG.md begins with {newest_change()}, the version is {project()[0]}")


if __name__ == "__main__":
    main()
