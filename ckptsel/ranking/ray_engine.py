"""Candidates scored on a Ray cluster: an actor for each GPU, or for each CPU where there is no GPU.

An actor opens the target once and scores one checkpoint after the other. What it needs besides lies in
files that every node sees under the same paths, or fetches from an address: checkpoints and images. A
cache folder that all see spares each node the decoding. A checkpoint whose actor is lost (killed, out
of memory, its machine gone) goes to another; one that loses two has failed.

Ray is imported when a cluster is asked for, never before.
"""

import os
import socket
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.walk import NOT_NEEDED
from ckptsel.common.devices import default_precision
from ckptsel.common.environment import package_version
from ckptsel.common.places import as_urls, is_url
from ckptsel.common.remote import local_path
from ckptsel.errors import CkptselError, InputError, UsageError, listed, reason_of
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.processes import Job, jobs_of
from ckptsel.ranking.scoring import Outcome, ScoringSpec, score_candidates
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.settings.kinds import Precision
from ckptsel.settings.rank import RankSettings

LOST = "the Ray worker that scored it was lost, twice (killed, or out of memory?)"

MAX_LOST = 2
"""Workers that one checkpoint may cost, and starts that may fail at one slot."""

CONNECT_S = 10.0
"""How long a cluster's address may take to answer."""

PATIENCE_S = 600.0
"""How long nothing may run while a cluster finds room for a worker."""


def check_ray() -> None:
    """Raises UsageError where Ray is not installed."""
    if find_spec("ray") is None:
        raise UsageError("the engine ray needs the package ray: pip install 'ckptsel[ray]'.")


def join_cluster(settings: RankSettings) -> RankSettings:
    """Connect to the cluster that the settings name, and choose what depends on it: the precision.

    Without an address: the one of $RAY_ADDRESS, else one that runs on this machine, else one that is
    started here. The connection stays until `ray.shutdown()`, or this process ends.
    Raises UsageError without Ray, InputError where there is no such cluster.
    """
    check_ray()
    _connect(settings.ray_address)
    device, _ = _slots(settings)
    precision = cast(Precision, settings.precision or default_precision(device))
    return replace(settings, precision=precision)


def score_on_cluster(spec: ScoringSpec) -> Iterator[Outcome]:
    """The outcome of each candidate as soon as it is there.

    spec: its settings as `join_cluster` gave them.
    Raises what `score_candidates` raises, and InputError where no worker can be started.
    """
    device, n_slots = _slots(spec.settings)
    spec = _from_anywhere(spec)
    jobs = jobs_of(spec.candidates)
    crew = _Crew(spec, device, min(n_slots, len(jobs)))
    try:
        yield from _scored(crew, jobs)
    finally:
        crew.dismiss()


def where_scored(settings: RankSettings) -> str:
    """What computes, for a note."""
    device, n_slots = _slots(settings)
    what = "GPU" if device == "cuda" else "CPU"
    return f"scored on a Ray cluster of {n_slots} {what}{'s' if n_slots > 1 else ''}"


class Worker:
    """What an actor runs: one target, opened with its first job."""

    def __init__(self, spec: ScoringSpec, device: str) -> None:
        import torch

        if device == "cpu":
            torch.set_num_threads(1)  # a slot is one core
        self._spec = replace(
            spec, settings=replace(spec.settings, engine="local", ray_address=None, device=device)
        )
        self._workspace: Workspace | None = None

    def version(self) -> str | None:
        return package_version("ckptsel")

    def score(self, job: Job) -> "list[Outcome] | CkptselError":
        """The outcomes of a job; or what is wrong with the images or the store, as a value: Ray makes
        a traceback of what is raised."""
        try:
            here = tuple(
                replace(each, checkpoint=_with_paths(each.checkpoint, self._here)) for each in job
            )
            return list(score_candidates(replace(self._spec, candidates=here), self._open()))
        except CkptselError as error:
            return error

    def _open(self) -> Workspace:
        if self._workspace is None:
            found = [candidate.checkpoint for candidate in self._spec.candidates]
            there = [one for one in found if one.path.exists() or is_url(one.path)] or found
            # Whose records of the network count.
            there[-1] = _with_paths(there[-1], self._here)
            settings = self._spec.settings
            self._workspace = open_workspace(settings, there, self._spec.data, quiet=True)
        return self._workspace

    def _here(self, checkpoint: Checkpoint) -> Checkpoint:
        """With its file on this machine, fetched where an address names it."""
        if not is_url(checkpoint.path):
            return checkpoint
        path = local_path(checkpoint.path, self._spec.settings.cache_dir, skip=NOT_NEEDED)
        return replace(checkpoint, path=path, root=None)


@dataclass
class _Crew:
    """The actors of a cluster, by slot, and what each is at.

    running: the slot and the job of each answer that is waited for; the job None while it starts.
    idle: slots whose actor waits. failed: how many starts have failed at a slot. why: the last did.
    """

    spec: ScoringSpec
    device: str
    n_slots: int
    actors: dict[int, Any] = field(default_factory=dict)
    running: dict[Any, tuple[int, Job | None]] = field(default_factory=dict)
    idle: deque[int] = field(default_factory=deque)
    failed: Counter[int] = field(default_factory=Counter)
    why: str = ""

    def __post_init__(self) -> None:
        import ray

        needs = {"num_gpus": 1} if self.device == "cuda" else {"num_cpus": 1}
        self._make = ray.remote(**needs)(Worker).remote
        self._shared = ray.put(self.spec)
        for slot in range(self.n_slots):
            self.start(slot)

    def start(self, slot: int) -> None:
        self.actors[slot] = self._make(self._shared, self.device)
        self.running[self.actors[slot].version.remote()] = slot, None

    def give(self, job: Job) -> None:
        slot = self.idle.popleft()
        self.running[self.actors[slot].score.remote(job)] = slot, job

    def start_again(self, slot: int, why: str) -> None:
        """Where an actor could not start; in the end the slot is left."""
        self.failed[slot] += 1
        self.why = why
        if self.failed[slot] < MAX_LOST:
            self.start(slot)

    def dismiss(self) -> None:
        import ray

        for actor in self.actors.values():
            ray.kill(actor)

    @property
    def works(self) -> bool:
        """Whether any job runs; not only actors that start."""
        return any(job is not None for _, job in self.running.values())


def _scored(crew: _Crew, jobs: Sequence[Job]) -> Iterator[Outcome]:
    waiting, n_lost = deque(jobs), Counter[str]()
    while waiting or crew.works:
        while waiting and crew.idle:
            crew.give(waiting.popleft())
        slot, job, answer = _next_answer(crew)
        if isinstance(answer, CkptselError):
            raise answer
        if job is None:
            _started(crew, slot, answer)
        elif not isinstance(answer, _Lost):
            crew.idle.append(slot)
            yield from answer
        else:
            crew.start(slot)
            n_lost[job[0].checkpoint.name] += 1
            if n_lost[job[0].checkpoint.name] < MAX_LOST:
                waiting.appendleft(
                    job
                )  # for whoever is free first, which is not the one that starts
            else:
                yield from (Outcome(candidate.name, problem=LOST) for candidate in job)


def _started(crew: _Crew, slot: int, answer: "str | _Lost | None") -> None:
    """An actor told its version, or was lost before it could."""
    if isinstance(answer, _Lost):
        crew.start_again(slot, answer.why)
    else:
        _check_version(answer)
        crew.idle.append(slot)


@dataclass(frozen=True)
class _Lost:
    """In the place of an answer: its actor is gone."""

    why: str


def _next_answer(crew: _Crew) -> tuple[int, Job | None, Any]:
    """(slot, job, answer) of whichever comes first. Raises InputError where none can come."""
    import ray

    if not crew.running:
        raise InputError(f"no worker of the Ray cluster could be started: {crew.why}")
    ready, _ = ray.wait(list(crew.running), timeout=None if crew.works else PATIENCE_S)
    if not ready:
        raise InputError(
            f"the Ray cluster had no room for a worker for {PATIENCE_S / 60:.0f} minutes: other jobs "
            "hold its GPUs or CPUs, or its machines are gone (`ray status`)."
        )
    slot, job = crew.running.pop(ready[0])
    try:
        return slot, job, ray.get(ready[0])
    except ray.exceptions.RayError as error:
        return slot, job, _Lost(_first_line(error))


def _from_anywhere(spec: ScoringSpec) -> ScoringSpec:
    """With whole paths: an actor runs in a folder of its own."""
    settings, data = spec.settings, Path(spec.data)
    return replace(
        spec,
        candidates=tuple(map(_by_address, spec.candidates)),
        data=str(data.absolute()) if data.exists() else spec.data,
        settings=replace(
            settings, data_root=_whole(settings.data_root), cache_dir=_whole(settings.cache_dir)
        ),
    )


def _whole(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _by_address(candidate: Candidate) -> Candidate:
    """With the address in the place of a mirror's file, which may be on this machine alone."""
    return replace(candidate, checkpoint=_with_paths(candidate.checkpoint, _address_of))


def _with_paths(checkpoint: Checkpoint, place: Callable[[Checkpoint], Checkpoint]) -> Checkpoint:
    """A checkpoint, and what it is made of, each placed elsewhere."""
    parts = tuple(_with_paths(part, place) for part in checkpoint.parts)
    return replace(place(checkpoint), parts=parts)


def _address_of(checkpoint: Checkpoint) -> Checkpoint:
    if is_url(checkpoint.path):
        return checkpoint
    return replace(checkpoint, path=Path(as_urls(str(checkpoint.path.absolute()))))


def _check_version(found: str | None) -> None:
    own = package_version("ckptsel")
    if found != own:
        raise InputError(
            f"the Ray cluster has ckptsel {found}, and this machine {own}: install the same on both."
        )


def _connect(address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _check_listens(address or "")
        import ray

        if not ray.is_initialized():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own future
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of a client that may raise anything
        where = f"the Ray cluster at {address}" if address else "a Ray cluster"
        raise InputError(
            f"{where} cannot be joined: {_first_line(error)} Give the address that `ray start` printed, "
            "with --ray-address."
        ) from error


def _check_listens(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_S).close()


def _slots(settings: RankSettings) -> tuple[str, int]:
    """(device, number): the cluster's GPUs where it has any and nothing else is asked for, else CPUs.

    Raises InputError where it has none of what is asked for.
    """
    import ray

    has = ray.cluster_resources()
    kinds = {"cuda": int(has.get("GPU", 0)), "cpu": int(has.get("CPU", 0))}
    asked = (settings.device or ("cuda" if kinds["cuda"] else "cpu")).partition(":")[0]
    if not kinds.get(asked):
        there = [f"{n} of {kind}" for kind, n in kinds.items() if n]
        raise InputError(
            f"the Ray cluster has no slot for the device {asked}: it has {listed(there) or 'none'}."
        )
    return asked, kinds[asked]


def _first_line(error: Exception) -> str:
    """Of an error of Ray, whose messages are pages."""
    return reason_of(error).removeprefix("unexpected ").rstrip(".") + "."
