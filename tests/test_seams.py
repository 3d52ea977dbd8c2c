"""What is new is a new file: another kind of encoder, another layer, another place to work."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ckptsel
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.errors import CheckpointError, ModelError
from ckptsel.features import registry
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.scoring import ScoringSpec, score_candidates
from ckptsel.settings.rank import RankSettings
from ckptsel.target.samples import Samples

LENGTH = 12
WORDS = (("red", "rose", "ruby"), ("blue", "sky", "sea"))


@dataclass(frozen=True)
class Letters:
    """A text as the numbers of its first letters."""

    shape: tuple[int, ...] = (LENGTH,)
    dtype: str = "int64"

    def key(self) -> str:
        return f"letters {LENGTH}"

    def prepare(self, samples: Samples, index: int) -> np.ndarray:
        text = samples.read(index)[:LENGTH]
        return np.frombuffer(text.ljust(LENGTH), dtype=np.uint8).astype(np.int64) % 64

    def to_dict(self) -> dict[str, Any]:
        return {"length": LENGTH}


class TextEncoder:
    """An embedding of letters, read where it is summed (`bag`) and after one layer (`last`)."""

    layers = ("bag", "last")
    preparation = Letters()

    def __init__(self, name: str) -> None:
        self.name = f"text:{name}"
        self.embedding, self.layer = nn.Embedding(64, 8), nn.Linear(8, 4)

    def load(self, weights: dict[str, Tensor]) -> str:
        for part in ("embedding", "layer"):
            module = getattr(self, part)
            own = {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(part)}
            if set(own) != set(module.state_dict()):
                raise CheckpointError(f"no {part}")
            module.load_state_dict(own)
        return ""

    def to(self, device: str) -> None:
        self.embedding.to(device)
        self.layer.to(device)

    def features(self, batch: Tensor, layers) -> dict[str, Tensor]:
        bag = self.embedding(batch).sum(1)
        found = {"bag": bag, "last": self.layer(bag)}
        return {layer: found[layer] for layer in layers}

    def key(self, layer: str) -> str:
        return f"{self.name} {layer}"

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "layer": "last", "preprocessing": self.preparation.to_dict()}


@pytest.fixture
def text_kind(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An installed package's kind of encoders; gives the names that were asked for."""
    asked: list[str] = []

    def build(name: str, settings: RankSettings) -> TextEncoder:
        asked.append(name)
        return TextEncoder(name)

    entry = SimpleNamespace(name="text", load=lambda: build)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [entry] if group == "ckptsel.encoders" else []
    )
    return asked


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Sixty short texts of two classes, named by a CSV file."""
    random = np.random.default_rng(0)
    rows = ["path,label"]
    for i in range(60):
        text = " ".join(random.choice(WORDS[i % 2], 2))
        (tmp_path / f"{i}.txt").write_text(text)
        rows.append(f"{i}.txt,{i % 2}")
    (tmp_path / "texts.csv").write_text("\n".join(rows))
    return tmp_path / "texts.csv"


@pytest.fixture
def text_run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        encoder = TextEncoder("made")
        weights = {f"embedding.{k}": v for k, v in encoder.embedding.state_dict().items()}
        weights |= {f"layer.{k}": v for k, v in encoder.layer.state_dict().items()}
        torch.save({"state_dict": weights, "epoch": epoch}, folder / f"epoch-{epoch}.pt")
    return folder


def rank_texts(run: Path, texts: Path, **options: object):
    scores = ("linear_probe", "logme")
    options = {"layers": ("bag", "last"), "scores": scores, "holdout": 0.5, **options}
    return ckptsel.rank(run, texts, model="text:made", **options)


@pytest.mark.parametrize("cache", [True, False])
def test_another_encoder_and_another_layer_are_ranked(
    text_run: Path, texts: Path, text_kind: list[str], cache: bool
) -> None:
    ranking = rank_texts(text_run, texts, cache=cache)
    assert text_kind == ["made"]
    assert {row.name: row.layer for row in ranking} == {
        "epoch-1": "last",
        "epoch-1@bag": "bag",
        "epoch-2": "last",
        "epoch-2@bag": "bag",
    }
    assert {row.order for row in ranking} == {0, 1}
    assert ranking.model == {
        "name": "text:made",
        "layer": "last",
        "layers": ["last", "bag"],
        "preprocessing": {"length": LENGTH},
    }
    assert all(row.scores["linear_probe"].value > 0.8 for row in ranking if row.layer == "bag")


def test_layers_of_a_checkpoint_have_features_of_their_own(
    text_run: Path, texts: Path, text_kind: list[str]
) -> None:
    ranking = rank_texts(text_run, texts)
    values = {row.name: row.scores["logme"].value for row in ranking}
    assert len(set(values.values())) == 4
    again = rank_texts(text_run, texts)
    assert {row.name: row.scores["logme"].value for row in again} == values
    assert "features" not in again.time_s


def test_a_copy_is_a_copy_at_every_layer(text_run: Path, texts: Path, text_kind: list[str]) -> None:
    (text_run / "last.pt").write_bytes((text_run / "epoch-2.pt").read_bytes())
    ranking = rank_texts(text_run, texts)
    assert ranking["last"].copy_of == "epoch-2"
    assert ranking["last@bag"].copy_of == "epoch-2@bag"
    assert ranking["last@bag"].scores == ranking["epoch-2@bag"].scores


def test_a_kind_is_run_only_where_the_user_names_it(
    text_run: Path, texts: Path, text_kind: list[str]
) -> None:
    for path in text_run.iterdir():
        payload = torch.load(path, weights_only=True)
        torch.save({**payload, "arch": "text:made"}, path)
    with pytest.raises(ModelError, match="'text:made', which is no name that timm knows"):
        ckptsel.rank(text_run, texts)
    assert text_kind == []


def test_scoring_is_a_function_of_plain_data(
    text_run: Path, texts: Path, text_kind: list[str]
) -> None:
    """What another process would be sent gives the numbers that this one has."""
    ranking = rank_texts(text_run, texts)
    spec = ScoringSpec(
        tuple(Candidate(c, layer) for c in scan_checkpoints(text_run) for layer in ("bag", "last")),
        str(texts),
        RankSettings(model="text:made", layers=("bag", "last"), cache=False, holdout=0.5),
        ("linear_probe", "logme"),
    )
    outcomes = list(score_candidates(pickle.loads(pickle.dumps(spec))))
    assert [outcome.problem for outcome in outcomes] == [None] * 4
    for outcome in pickle.loads(pickle.dumps(outcomes)):
        for name, result in outcome.results.items():
            assert result.value == ranking[outcome.name].scores[name].value


def test_one_candidate_that_fails_costs_no_other(
    text_run: Path, texts: Path, text_kind: list[str]
) -> None:
    spec = ScoringSpec(
        tuple(Candidate(c) for c in scan_checkpoints(text_run)),
        str(texts),
        RankSettings(model="text:made", cache=False, holdout=0.5),
        ("linear_probe",),
    )
    torch.save({"state_dict": {"embedding.weight": torch.zeros(1)}}, text_run / "epoch-1.pt")
    first, second = score_candidates(spec)
    assert "was replaced after it was scanned" in first.problem and second.problem is None
