"""Checkpoints scored on a Ray cluster: the ranking of one machine, whatever becomes of its workers."""

import dataclasses
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptsel
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.confirmation.runs import Transfer
from ckptsel.features.candidate import Candidate
from ckptsel.ranking import ray_engine
from ckptsel.ranking.calls import Opening
from ckptsel.ranking.reopen import recorded_settings
from ckptsel.results.ranking import Ranking
from ckptsel.settings.rank import make_settings

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")


def numbers(ranking: Ranking) -> list:
    return [
        (row.name, row.status, row.p_best, {k: v.value for k, v in row.scores.items()})
        for row in ranking.checkpoints
    ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes of one CPU each, on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    made.add_node(**small)
    made.wait_for_nodes()
    yield made.address
    ray.shutdown()
    made.shutdown()


pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # what a library warns of in this process is its own


@needs_ray
def test_two_nodes_give_the_ranking_of_one_machine(
    cluster: str, trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    options = {"engine": "ray", "ray_address": cluster, "cache_dir": str(tmp_path / "there")}
    alone = ckptsel.rank(trajectory, images, layers=("last", "all"), cache=False)
    there = ckptsel.rank(trajectory, images, layers=("last", "all"), **options)
    assert numbers(alone) == numbers(there)
    assert "scored on a Ray cluster of 2 CPUs" in there.notes
    # A second ranking finds all of it.
    monkeypatch.setattr(ray_engine, "Worker", None)
    again = ckptsel.rank(trajectory, images, layers=("last", "all"), **options)
    assert numbers(alone) == numbers(again)


@needs_ray
def test_a_budget_on_two_nodes(
    cluster: str, run_of_six: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    """Two checkpoints a turn, as with two processes; what was kept is looked at in the same turns."""
    import ray

    options = {"budget": 5, "scores": ("linear_probe",), "max_train_samples": 32}
    side_by_side = ckptsel.rank(run_of_six, images, processes=2, cache=False, **options)
    options |= {"engine": "ray", "ray_address": cluster, "cache_dir": str(tmp_path / "there")}
    there = ckptsel.rank(run_of_six, images, **options)
    assert numbers(there) == numbers(side_by_side) and there.search == side_by_side.search
    assert there.search is not None and there.search.n_seen == 5
    monkeypatch.setattr(ray, "remote", None)
    again = ckptsel.rank(run_of_six, images, **options)
    assert numbers(again) == numbers(there) and again.search == there.search


def killer(name: str, once: Path | None) -> type:
    """A worker that ends at a checkpoint: once, or whenever it comes."""

    class Killer(ray_engine.Worker):
        def answer(self, call):
            if call.job[0].checkpoint.name == name and (once is None or not once.exists()):
                if once is not None:
                    once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().answer(call)

    return Killer


@needs_ray
@pytest.mark.parametrize("always", [False, True])
def test_a_worker_that_dies(
    cluster: str, trajectory: Path, images: Path, tmp_path: Path, monkeypatch, always: bool
) -> None:
    """Once: its checkpoint is scored by another. Whenever: that checkpoint alone has failed."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    alone = ckptsel.rank(trajectory, images, cache=False)
    victim = "checkpoint-001"  # the first to be scored
    monkeypatch.setattr(ray_engine, "Worker", killer(victim, None if always else tmp_path / "once"))
    there = ckptsel.rank(trajectory, images, cache=False, engine="ray", ray_address=cluster)
    if not always:
        assert (tmp_path / "once").exists() and numbers(alone) == numbers(there)
    else:
        (failed,) = [row for row in there.checkpoints if row.status == "failed"]
        assert failed.name == victim and failed.reason.startswith(ray_engine.LOST)


@needs_ray
def test_workers_fetch_what_addresses_name(
    cluster: str, trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    """Each into a cache of its own, as on machines that share no folder; of an average all parts."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_engine, "Worker", Apart)
    alone = ckptsel.rank(trajectory, images, cache=False, average=(2, 3))
    addresses = f"file://{trajectory}", f"file://{images}"
    options = {"engine": "ray", "ray_address": cluster, "cache_dir": str(tmp_path / "there")}
    there = ckptsel.rank(*addresses, average=(2, 3), **options)
    assert numbers(alone) == numbers(there)
    own = list(tmp_path.glob("there-*"))
    assert own and all(list(path.glob("remote/file/**/*.safetensors")) for path in own)


class Apart(ray_engine.Worker):
    """With a cache of its own, as on a machine that shares no folder."""

    def __init__(self, opening, device):
        folder = f"{opening.settings.cache_dir}-{os.getpid()}"
        own = dataclasses.replace(opening.settings, cache_dir=folder)
        super().__init__(dataclasses.replace(opening, settings=own), device)


@needs_ray
@pytest.mark.parametrize("worker", [ray_engine.Worker, Apart])
def test_two_nodes_confirm_as_one_machine_does(
    cluster: str, ranked: Path, tmp_path: Path, monkeypatch, worker: type
) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_engine, "Worker", worker)
    options = {"goal": "both", "steps": 9, "n_seeds": 2, "lr": (0.03, 0.1), "full": True}
    ckptsel.confirm(ranked, cache_dir=str(tmp_path / "here"), **options)
    alone = json.loads((ranked / "confirm.json").read_text())["goals"]
    options |= {"engine": "ray", "ray_address": cluster, "cache_dir": str(tmp_path / "there")}
    monkeypatch.setattr(Transfer, "advance", None)  # nothing is trained in this process
    confirmed = ckptsel.confirm(ranked, **options)
    assert json.loads((ranked / "confirm.json").read_text())["goals"] == alone
    assert "trained on a Ray cluster of 2 CPUs" in confirmed.notes
    # What came from there is kept here: no worker is started.
    monkeypatch.setattr(ray_engine.Cluster, "start", None)
    ckptsel.confirm(ranked, **options)
    assert json.loads((ranked / "confirm.json").read_text())["goals"] == alone


@needs_ray
def test_images_that_cannot_be_read_there_end_it(
    cluster: str, trajectory: Path, images: Path, run, monkeypatch
) -> None:
    class Blind(ray_engine.Worker):
        def _open(self):
            from ckptsel.errors import DataError

            raise DataError("no data at elsewhere.")

    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_engine, "Worker", Blind)
    code, _, said = run(
        "rank", trajectory, "--data", images, "--engine", "ray", "--ray-address", cluster
    )
    assert code == 3 and said.splitlines()[-1] == "error: no data at elsewhere."


@needs_ray
def test_a_device_that_the_cluster_has_not(cluster: str, trajectory: Path, images: Path) -> None:
    options = {"engine": "ray", "ray_address": cluster, "device": "cuda"}
    with pytest.raises(
        ckptsel.errors.InputError, match="no slot for the device cuda: it has 2 of cpu"
    ):
        ckptsel.rank(trajectory, images, **options)


def test_a_ranking_names_no_cluster_and_no_devices_of_another_machine(
    trajectory: Path, images: Path
) -> None:
    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    elsewhere = {"engine": "ray", "ray_address": "a:1", "devices": ["cuda:0", "cuda:1"]}
    taken_up = recorded_settings(
        dataclasses.replace(ranking, settings={**ranking.settings, **elsewhere})
    )
    assert (taken_up.engine, taken_up.ray_address, taken_up.devices) == ("local", None, None)


def test_without_ray(run, trajectory: Path, images: Path, monkeypatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    code, _, said = run("rank", trajectory, "--data", images, "--engine", "ray")
    assert code == 2
    assert said == "error: the engine ray needs the package ray: pip install 'ckptsel[ray]'.\n"


def test_an_address_where_nothing_listens(run, trajectory: Path, images: Path, monkeypatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: name)
    options = ("--engine", "ray", "--ray-address", "127.0.0.1:1")
    code, _, said = run("rank", trajectory, "--data", images, *options)
    assert code == 3
    assert said.startswith(
        "error: the Ray cluster at 127.0.0.1:1 cannot be joined: ConnectionRefused"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ray-address", "a:1"), "--ray-address is for --engine ray."),
        (("--engine", "ray", "--processes", "2"), "--engine ray and --processes both say where"),
        (("--engine", "ray", "--devices", "cpu"), "--engine ray and --devices both say where"),
    ],
)
def test_options_that_do_not_fit(run, trajectory: Path, images: Path, options, message) -> None:
    code, _, said = run("rank", trajectory, "--data", images, *options)
    assert code == 2 and message in said


def test_what_an_actor_gets_names_whole_paths(
    trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    """An actor runs in a folder of its own."""
    monkeypatch.chdir(trajectory.parent)
    found = scan_checkpoints(Path(trajectory.name))
    settings = make_settings({"cache_dir": "kept", "workers": 0})
    data = os.path.relpath(images)
    sent = ray_engine._by_address(Candidate(found[0])).checkpoint
    opening = ray_engine._from_anywhere(Opening((found[0],), data, settings))
    monkeypatch.chdir(tmp_path)
    assert sent.path.is_file() and opening.checkpoints[0].path.is_file()
    assert Path(opening.data).is_dir()
    assert opening.settings.cache_dir == str(trajectory.parent / "kept")
    address = dataclasses.replace(found[0], path=Path("s3:/bucket/a.pt"))
    there = ray_engine._from_anywhere(Opening((address,), "s3://bucket/images", settings))
    assert there.data == "s3://bucket/images"
    assert str(there.checkpoints[0].path) == "s3:/bucket/a.pt"
