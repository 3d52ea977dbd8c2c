"""Files of public repositories, read as they lie there; they are not part of this repository.

What each is expected to be was written down from the files themselves: parameters counted and epochs
read by torch where it reads them without running anything, and by hand elsewhere.
"""

import json
from pathlib import Path

import pytest

from ckptsel.checkpoints.scan import Scan, scan

WILD = Path(__file__).parents[2] / "shared" / "wild"
EXPECTED = json.loads((Path(__file__).parent / "data" / "wild.json").read_text())
REPOSITORIES = sorted({name.partition("/")[0] for name in EXPECTED})

pytestmark = pytest.mark.skipif(not WILD.is_dir(), reason="the files are not there")


def facts_of(found: Scan, name: str) -> dict[str, object]:
    """What was found of a file, by the keys of `wild.json`."""
    checkpoint = next((c for c in found.checkpoints if c.path == WILD / name), None)
    if checkpoint is None:
        suffix = Path(name).suffix
        return {"counted": True} if found.others[suffix] else {}
    if checkpoint.problem is not None:
        return {"refused": checkpoint.problem}
    keys = ("epoch", "epoch_from", "arch", "weights_key", "n_parameters", "source_accuracy")
    return {key: value for key in keys if (value := getattr(checkpoint, key)) is not None}


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_every_file_is_read_right_or_refused_helpfully(repository: str) -> None:
    found = scan(WILD / repository)
    for name in (n for n in EXPECTED if n.startswith(f"{repository}/")):
        expected, facts = EXPECTED[name], facts_of(found, name)
        if "refused" in expected:
            assert str(facts.get("refused")).startswith(expected["refused"])
        else:
            assert facts == {k: pytest.approx(v) if k == "source_accuracy" else v
                             for k, v in expected.items()}  # fmt: skip


def test_they_are_all_that_is_there() -> None:
    listed = json.loads((WILD / "files.json").read_text())
    names = {f"{each['repository'].replace('/', '__')}/{each['path']}" for each in listed}
    assert names == EXPECTED.keys()


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("ChrisPalmerNZ__DRLND_p1_navigation", "no trajectory: the tensors of 2 networks differ"),
        ("ssolid20__CNNImageClassifier", "no trajectory: the tensors of 2 networks differ"),
        ("xiaruize0911__diffusion-model-mnist", "no trajectory: the tensors of 2 networks differ"),
        ("Lukas-dev1__Fashion-Deep-Learning", "number at the end of the name, marked ?"),
        ("eonDusty__pytorchDesign", "a whole pickled module: its class (cnn_model.CNN) was not"),
        ("luizamfsantos__long-short-lstm", "torch.nn.functional.binary_cross_entropy"),
        ("rayhanul__opacus", "best_acc1, which checkpoint recorded, is percent or a fraction"),
        ("nikolaev1ma__bottleneck_information", "2 other files: 2 .npz, no checkpoints"),
    ],
)
def test_what_a_reader_should_know_is_said(repository: str, said: str) -> None:
    assert said in " ".join(scan(WILD / repository).notes())
