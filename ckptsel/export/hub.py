"""Pushing a checkpoint to the Hugging Face hub: weights, card, picture. Only where it is asked for."""

import sys
from importlib.util import find_spec
from pathlib import Path

from ckptsel.errors import OutputError, UsageError, reason_of


def check_hub() -> None:
    """Raises UsageError where the hub's client is not installed."""
    if find_spec("huggingface_hub") is None:
        raise UsageError(
            "pushing needs the package huggingface_hub: pip install 'ckptsel[hub]', then: hf auth login."
        )


def push(folder: Path, repo: str, public: bool) -> str:
    """Upload all files of a folder in one commit; gives its address.

    repo: `ORG/NAME`, made where it is not there: private, unless `public`. One that is there stays as
    visible as it is. Who pushes is what the hub's client knows (HF_TOKEN, or `hf auth login`).
    Raises OutputError where the hub does not take it, whatever went wrong.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        api = HfApi(library_name="ckptsel")
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Checkpoint chosen with ckptsel"
        )
    except Exception as error:  # of a client that may raise anything
        raise OutputError(
            f"the hub did not take {repo}: {_reason(error)}. See that it can be reached, and log in "
            "(hf auth login, or HF_TOKEN) with a token that may write there; then push again: "
            "nothing else is lost."
        ) from error
    return str(commit.commit_url)


def _reason(error: Exception) -> str:
    """Of what was raised first: the client wraps it into what says less."""
    first = error
    while isinstance(first.__cause__, Exception):
        first = first.__cause__
    return reason_of(first).rstrip(".")
