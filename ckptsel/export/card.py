"""A model card: what a checkpoint is, what it was ranked on, how well it did, and how to load it.

It begins with YAML that the Hugging Face hub reads (`model-index`), each result with its interval. Of
the folder of the images only the last name is in it, and none of the checkpoints'.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from ckptsel.common.outlets import markdown
from ckptsel.features.names import is_registered
from ckptsel.report.tables import markdown_table
from ckptsel.results.confirmation import CONFIRMED
from ckptsel.results.estimate import Estimate, percent
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.summary import summary

WEIGHTS_NAME = "model.safetensors"

OWN_NETWORKS = "cifar_resnet"
"""Networks that timm knows once ckptsel's are imported."""

RANKED_WITH = "## What it was ranked with"
"""A heading that every card has."""

GOALS = {"fe": "a softmax layer trained on frozen features", "ft": "fine-tuning"}

PROBES = {
    "linear_probe": "linear probe on frozen features",
    "ridge_probe": "ridge regression on frozen features",
}


def card_text(
    ranking: Ranking,
    row: Row,
    picture: str | None = None,
    repo: str = "",
    weights: str = WEIGHTS_NAME,
) -> str:
    """The card of one checkpoint of a ranking, as Markdown behind YAML.

    picture: file of the chart beside it. repo: `ORG/NAME` on the hub, where the weights are to be found;
    else they lie beside the card. weights: the name of their file.
    """
    parts = [
        f"---\n{front_matter(ranking, row, repo)}---\n",
        f"# {markdown(row.checkpoint)}\n",
        *(f"{line}\n" for line in _about(ranking, row)),
        "## Results\n",
        *(f"{markdown(line)}\n" for line in _result_lines(ranking, row)),
        "## Load it\n",
        _loading(ranking, row, repo, weights),
        f"{RANKED_WITH}\n",
        markdown_table(ranking),
        f"{markdown(summary(ranking))}\n",
    ]
    if picture is not None:
        parts += [f"![Scores along the run, with 95 % intervals]({picture})\n"]
    return "\n".join(parts)


def front_matter(ranking: Ranking, row: Row, repo: str = "") -> str:
    """The YAML. Texts are quoted as JSON has them, which YAML takes: no name can be read as more."""
    value: dict[str, Any] = {
        "library_name": "timm" if _is_timm(ranking) else "ckptsel",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["ckptsel", "image-feature-extraction"],
    }
    if results(ranking, row):
        name = repo.rpartition("/")[2] or row.checkpoint
        value["model-index"] = [{"name": name, "results": [_result(ranking, row)]}]
    return "".join(f"{key}: {json.dumps(each)}\n" for key, each in value.items())


def results(ranking: Ranking, row: Row) -> list[tuple[str, Estimate]]:
    """(what was measured, accuracy) of a checkpoint: by real training, and by the probe. Where it is the
    best, first what to expect of it on images that did not choose it."""
    found: list[tuple[str, Estimate]] = []
    expected = ranking.expected
    if row.name == ranking.best and expected is not None and ranking.is_accuracy(expected.by):
        by = GOALS[ranking.goal] if expected.by == CONFIRMED else expected.by
        found.append((f"expected on new images ({by})", expected))
    for goal, about in GOALS.items():
        if (trained := row.trained(goal)) is not None:
            found.append((about, trained))
    found += [(about, row.scores[name]) for name, about in PROBES.items() if name in row.scores]
    return found


def _result(ranking: Ranking, row: Row) -> dict[str, Any]:
    """One entry of the model index: all that was measured on the target."""
    data, target = PurePath(ranking.target["data"]).name, ranking.target
    return {
        "task": {"type": "image-classification"},
        "dataset": {
            "type": data,
            "name": data,
            "split": target["evaluation"]["method"],
            "args": {"n_classes": target["n_classes"], "fingerprint": target["fingerprint"]},
        },
        "metrics": [_metric(what, accuracy) for what, accuracy in results(ranking, row)],
    }


def _metric(what: str, accuracy: Estimate) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": "accuracy", "name": what, "value": round(accuracy.value, 4)}
    if accuracy.low is not None and accuracy.high is not None:
        ends = {"low": round(accuracy.low, 4), "high": round(accuracy.high, 4)}
        metric["args"] = {**ends, "level": 0.95, "n": accuracy.n, "random": accuracy.random}
    return metric


def _about(ranking: Ranking, row: Row) -> Iterator[str]:
    target, evaluation = ranking.target, ranking.target["evaluation"]
    when = f"epoch {row.epoch:g}" if row.epoch is not None else f"step {row.step}"
    when = f", {when} of its run" if (row.epoch, row.step) != (None, None) else ""
    if row.average_of:
        names = ", ".join(part.name for part in row.average_of)
        when = f", the mean of the weights of {names}"
    n = sum(each.rank is not None and each.copy_of is None for each in ranking)
    rank = "" if row.rank is None else f" It is number {row.rank} of {n}."
    yield (
        f"Backbone `{ranking.model['name']}` without its classifier{markdown(when)}, chosen with "
        f"ckptsel for {markdown(PurePath(target['data']).name)} ({target['n_classes']} classes).{rank}"
    )
    yield (
        f"{evaluation['n_train']} images were fitted on and {evaluation['n_eval']} held out "
        f"({markdown(evaluation['method'])})."
    )
    if ranking.why_not is not None:
        yield f"**No checkpoint was recommended:** {markdown(ranking.why_not)}"


def _result_lines(ranking: Ranking, row: Row) -> Sequence[str]:
    return [
        f"Accuracy, {what}: {percent(accuracy, ' %')} (95 % interval)"
        for what, accuracy in results(ranking, row)
    ] or ["No accuracy was measured."]


def _is_timm(ranking: Ranking) -> bool:
    return ":" not in ranking.model["name"]


def _loading(ranking: Ranking, row: Row, repo: str, weights: str) -> str:
    """How to load its weights, and how to get the features that were ranked."""
    name, preprocessing = ranking.model["name"], ranking.model["preprocessing"]
    if repo:
        lines = ["from huggingface_hub import hf_hub_download"]
        file = f"hf_hub_download({json.dumps(repo)}, {json.dumps(weights)})"
    else:
        lines, file = [], json.dumps(weights)
    if _is_timm(ranking):
        own = ["import ckptsel.features.cifar_resnet"] if name.startswith(OWN_NETWORKS) else []
        lines = [*own, "import timm", *lines, "from safetensors.torch import load_file", ""]
        lines += [f"model = timm.create_model({json.dumps(name)}, num_classes=0)"]
        lines += [f"model.load_state_dict(load_file({file}))", "model.eval()"]
    else:
        lines = [*lines, "from safetensors.torch import load_file", ""]
        lines += [f"weights = load_file({file})  # the names are those of {json.dumps(name)}"]
    named = "" if is_registered(name) else f", model={json.dumps(name)}"
    ranked = f"import ckptsel\n\nextractor = ckptsel.load_extractor({file}{named})"
    where = "its last layer" if row.layer == "last" else markdown(row.layer)
    return (
        _python("\n".join(lines))
        + f"\nIt was ranked with what it gives at {where}. Exactly these features, with "
        f"`extractor.transform` to prepare an image:\n\n{_python(ranked)}\n"
        f"Images were prepared so: {markdown(json.dumps(preprocessing))}\n"
    )


def _python(code: str) -> str:
    return f"```python\n{code}\n```\n"


def draw_picture(folder: Path, ranking: Ranking, arrays: dict[str, Any]) -> str | None:
    """Write the chart of scores along the run as PNG; its name. None where there is none."""
    from ckptsel.report.charts import draw
    from ckptsel.report.page import write_figures

    drawings = [one for one in draw(ranking, arrays) if one.section == "trajectory"]
    paths = write_figures(folder, drawings[:1], "png")
    return paths[0].name if paths else None
