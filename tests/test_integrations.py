"""A watch that is started from inside a trainer. `make test-trainers` installs the trainers.

Nothing is downloaded: networks are tiny, with random weights.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptsel.integrations import loop
from ckptsel.integrations.loop import rank_beside
from tests.conftest import TINY_MODEL, save_checkpoint

FAST = {"scores": ("linear_probe",), "poll": 0.2, "nice": 0, "workers": 0}


def rows_of(out: Path) -> list[dict[str, Any]]:
    log = (out / loop.LOG_NAME).read_text()
    assert (out / "ranking.json").is_file(), log
    return json.loads((out / "ranking.json").read_text())["checkpoints"]


def wait_for_rows(out: Path, n: int, seconds: float = 120) -> None:
    """Until so many checkpoints are ranked: what comes next may delete them."""
    deadline = time.monotonic() + seconds
    while n and not ((out / "ranking.json").is_file() and len(rows_of(out)) >= n):
        assert time.monotonic() < deadline, (out / loop.LOG_NAME).read_text()
        time.sleep(0.1)


def wait_for_the_end(out: Path, seconds: float = 120) -> None:
    """Until the last round of a watch that nobody waits for: its page rests."""
    page, deadline = out / "report.html", time.monotonic() + seconds
    while not page.is_file() or "location.reload" in page.read_text():
        assert time.monotonic() < deadline, (out / loop.LOG_NAME).read_text()
        time.sleep(0.2)


def test_beside_a_loop(tmp_path: Path, images: Path, capsys) -> None:
    run = tmp_path / "run"
    with rank_beside(run, images, **FAST) as beside:
        for epoch in (1, 2):
            save_checkpoint(run / f"checkpoint-{epoch:03d}.safetensors", epoch, epoch, 0.5)
    rows = rows_of(run / "ranking")
    assert sorted(row["name"] for row in rows if row["status"] == "ok") == [
        "checkpoint-001",
        "checkpoint-002",
    ]
    assert "the ranking is in" in capsys.readouterr().err
    assert "location.reload" not in (run / "ranking/report.html").read_text()
    beside.end()  # twice is no harm


TRAINER = """
import os, sys
from tests.conftest import save_checkpoint
from ckptsel.integrations.loop import rank_beside
from pathlib import Path
run, images = map(Path, sys.argv[1:])
rank_beside(run, images, scores=["linear_probe"], poll=0.2, workers=0)
save_checkpoint(run / "checkpoint-001.safetensors", 1, 1, 0.5)
os.abort()
"""


@pytest.mark.slow
def test_a_trainer_that_crashes_leaves_a_ranking(tmp_path: Path, images: Path) -> None:
    run = tmp_path / "run"
    crashed = subprocess.run([sys.executable, "-c", TRAINER, run, images], capture_output=True)
    assert crashed.returncode < 0
    wait_for_the_end(run / "ranking")
    assert [row["name"] for row in rows_of(run / "ranking")] == ["checkpoint-001"]


def test_nothing_is_raised_into_the_trainer(
    tmp_path: Path, images: Path, capsys, monkeypatch
) -> None:
    rank_beside(tmp_path / "run", tmp_path / "no-images", no_such_option=1).end()
    assert "ended with exit code 2: see" in capsys.readouterr().err
    early = rank_beside(tmp_path / "run", images, no_such_option=1)
    assert early.process is not None
    early.process.wait()
    for _ in range(2):  # said once, and not only when the training is over
        early.check()
    early.end()
    assert capsys.readouterr().err.count("ended with exit code 2: see") == 1
    (tmp_path / "file").touch()
    rank_beside(tmp_path / "file" / "run", images).end()
    assert "the watch was not started: NotADirectoryError" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert rank_beside(tmp_path / "run", images).process is None
    assert capsys.readouterr().err == ""


def test_options_are_those_of_the_command_line() -> None:
    options = {
        "keep_best": 3,
        "scores": ["a", "b"],
        "strict": False,
        "skip_unreadable": True,
        "by": None,
    }
    assert list(loop._words(options)) == [
        *("--keep-best=3", "--scores=a,b", "--no-strict", "--skip-unreadable")
    ]


# ---- Lightning -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_beside_lightning(tmp_path: Path, images: Path) -> None:
    """Three epochs, of which Lightning keeps the last checkpoint alone, and the ranking all."""
    pl = pytest.importorskip("lightning.pytorch")
    import timm

    from ckptsel.integrations.lightning import RankCheckpoints

    class Network(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = timm.create_model(TINY_MODEL)

        def training_step(self, batch: Any, index: int) -> Any:
            return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def on_train_epoch_start(self) -> None:
            wait_for_rows(tmp_path / "ranking", self.current_epoch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = torch.utils.data.TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8))
    saving = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "ckpts", every_n_epochs=1)
    ranking = RankCheckpoints(
        images, out=tmp_path / "ranking", model=TINY_MODEL, keep_best=1, **FAST
    )
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[saving, ranking],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Network(), torch.utils.data.DataLoader(data, batch_size=4))
    rows = rows_of(tmp_path / "ranking")
    assert all(row["status"] == "ok" and row["format"] == "Lightning" for row in rows)
    assert sorted(row["epoch"] for row in rows) == [0, 1, 2]
    assert len(list((tmp_path / "ckpts").iterdir())) == 1
    assert list((tmp_path / "ranking").glob("kept/*/*"))


@pytest.mark.filterwarnings("ignore")
def test_a_fit_that_fails_fails_as_without(tmp_path: Path, images: Path) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from ckptsel.integrations.lightning import RankCheckpoints

    class Broken(pl.LightningModule):
        def training_step(self, batch: Any, index: int) -> Any:
            raise RuntimeError("as it is")

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)

    callbacks = [
        pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "ckpts"),
        RankCheckpoints(images, **FAST),
    ]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
    )
    with pytest.raises(RuntimeError, match="as it is"):
        trainer.fit(Broken(), torch.utils.data.DataLoader(torch.zeros(4, 1)))


# ---- transformers --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_beside_transformers(tmp_path: Path, images: Path) -> None:
    library = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from ckptsel.integrations.huggingface import RankCheckpoints

    config = library.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    samples = [{"pixel_values": torch.randn(3, 16, 16), "labels": i % 3} for i in range(8)]
    arguments = library.TrainingArguments(
        output_dir=str(tmp_path / "ckpts"),
        num_train_epochs=3,
        save_strategy="epoch",
        per_device_train_batch_size=4,
        save_total_limit=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )

    class Slowly(library.TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            wait_for_rows(tmp_path / "ranking", round(state.epoch))

    ranking = RankCheckpoints(images, out=tmp_path / "ranking", **FAST)
    library.Trainer(
        model=library.ViTForImageClassification(config),
        args=arguments,
        train_dataset=samples,
        callbacks=[ranking, Slowly()],
    ).train()
    rows = rows_of(tmp_path / "ranking")
    assert all(row["status"] == "ok" for row in rows), rows
    assert sorted(row["step"] for row in rows) == [2, 4, 6]
    assert len(list((tmp_path / "ckpts").glob("checkpoint-*"))) == 1


# ---- timm's train.py -----------------------------------------------------------------------------


def test_beside_timms_train(tmp_path: Path, images: Path) -> None:
    """Three epochs, of which it keeps the best two and `last`; the ranking has all that were there.

    Its script is in no package: TIMM_TRAIN is the path of a copy.
    """
    script = os.environ.get("TIMM_TRAIN") or pytest.skip("no copy of timm's train.py (TIMM_TRAIN)")
    text = Path(script).read_text()
    made = re.search(r"^( +)output_dir = utils\.get_outdir\(.*\n", text, re.MULTILINE)
    assert made is not None
    options = "scores=['linear_probe'], poll=0.2, workers=0, out=output_dir + '/../ranking'"
    line = f"{made[1]}rank_beside(output_dir, {str(images)!r}, image_size=32, {options})\n"
    first = "from ckptsel.integrations.loop import rank_beside\n"
    head, imports, rest = text[: made.end()].partition("import argparse\n")
    (tmp_path / "train.py").write_text(head + imports + first + rest + line + text[made.end() :])
    trained = [sys.executable, "train.py", "--data-dir", str(images), "--model", "resnet10t"]
    trained += ["--num-classes", "3", "--img-size", "32", "--batch-size", "8", "--epochs", "3"]
    trained += ["--workers", "0", "--device", "cpu", "--checkpoint-hist", "2", "--output", "runs"]
    trained += ["--train-split", "train", "--val-split", "train", "--experiment", "one"]
    done = subprocess.run(
        trained, cwd=tmp_path, capture_output=True, text=True, env=_with_ckptsel()
    )
    assert done.returncode == 0, done.stderr[-2000:]
    wait_for_the_end(tmp_path / "runs/ranking")
    rows = rows_of(tmp_path / "runs/ranking")
    assert {row["status"] for row in rows} == {"ok"}
    epochs = {row["epoch"] for row in rows if row["copy_of"] is None}
    assert max(epochs) == 2 and len(epochs) >= 2


def _with_ckptsel() -> dict[str, str]:
    """The environment of a script elsewhere, which finds this package."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
