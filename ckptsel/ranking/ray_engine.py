"""Work on checkpoints on a Ray cluster: an actor for each GPU, or for each CPU where there is no GPU.

An actor opens the target once and answers one call after the other. What it needs besides lies in
files that every node sees under the same paths, or fetches from an address: checkpoints and images. A
cache folder that all see spares each node the decoding. A call whose actor is lost (killed, out of
memory, its machine gone) goes to another; one that loses two is lost itself.

Ray is imported when a cluster is asked for, never before.
"""

import os
import socket
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.walk import NOT_NEEDED
from ckptsel.common.environment import package_version
from ckptsel.common.places import as_urls, is_url
from ckptsel.common.remote import local_path
from ckptsel.errors import CkptselError, InputError, UsageError, listed, reason_of
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.calls import A, Call, Lost, Opening
from ckptsel.ranking.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from typing_extensions import Self

LOST = "the Ray worker that worked on it was lost, twice (killed, or out of memory?)"

MAX_LOST = 2
"""Workers that one call may cost, and starts that may fail at one slot."""

CONNECT_S = 10.0
"""How long a cluster's address may take to answer."""

PATIENCE_S = 600.0
"""How long nothing may run while a cluster finds room for a worker."""


def check_ray() -> None:
    """Raises UsageError where Ray is not installed."""
    if find_spec("ray") is None:
        raise UsageError("the engine ray needs the package ray: pip install 'ckptsel[ray]'.")


class Wanted(Protocol):
    """Settings that say which cluster, and which of its devices."""

    @property
    def ray_address(self) -> str | None: ...

    @property
    def device(self) -> str | None: ...


def join_cluster(settings: Wanted) -> str:
    """Connect to the cluster that the settings name; gives the kind of its devices, cuda or cpu.

    Without an address: the one of $RAY_ADDRESS, else one that runs on this machine, else one that is
    started here. The connection stays until `ray.shutdown()`, or this process ends.
    Raises UsageError without Ray, InputError where there is no such cluster.
    """
    check_ray()
    _connect(settings.ray_address)
    return _slots(settings)[0]


def describe_cluster(settings: Wanted) -> str:
    """What computes, for a note."""
    device, n_slots = _slots(settings)
    what = "GPU" if device == "cuda" else "CPU"
    return f"a Ray cluster of {n_slots} {what}{'s' if n_slots > 1 else ''}"


def n_slots(settings: Wanted) -> int:
    """How many of the cluster's devices are worked on."""
    return _slots(settings)[1]


class Worker:
    """What an actor runs: one target, opened with its first call."""

    def __init__(self, opening: Opening, device: str) -> None:
        import torch

        if device == "cpu":
            torch.set_num_threads(1)  # a slot is one core
        settings = replace(opening.settings, engine="local", ray_address=None, device=device)
        self._opening = replace(opening, settings=settings)
        self._workspace: Workspace | None = None

    def version(self) -> str | None:
        return package_version("ckptsel")

    def answer(self, call: Call[A]) -> "A | CkptselError":
        """What the work gives; or what is wrong with the images or the store, as a value: Ray makes
        a traceback of what is raised."""
        try:
            here = tuple(
                replace(each, checkpoint=_with_paths(each.checkpoint, self._here))
                for each in call.job
            )
            return call.work(here, self._open())
        except CkptselError as error:
            return error

    def _open(self) -> Workspace:
        if self._workspace is None:
            found, settings = self._opening.checkpoints, self._opening.settings
            there = [one for one in found if one.path.exists() or is_url(one.path)] or [*found]
            # Whose records of the network count.
            there[-1] = _with_paths(there[-1], self._here)
            self._workspace = open_workspace(settings, there, self._opening.data, quiet=True)
        return self._workspace

    def _here(self, checkpoint: Checkpoint) -> Checkpoint:
        """With its file on this machine, fetched where an address names it."""
        if not is_url(checkpoint.path):
            return checkpoint
        path = local_path(checkpoint.path, self._opening.settings.cache_dir, skip=NOT_NEEDED)
        return replace(checkpoint, path=path, root=None)


class Cluster:
    """The actors of a cluster, by slot, and what each is at; they start with what is first asked for,
    and end with the block.

    opening: with the settings that `join_cluster` had.
    running: the slot and the call of each answer that is waited for; the call None while it starts.
    idle: slots whose actor waits. failed: how many starts have failed at a slot. why: the last did.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self.device, self.n_slots = _slots(opening.settings)
        self.actors: dict[int, Any] = {}
        self.running: dict[Any, tuple[int, Call[Any] | None]] = {}
        self.idle: deque[int] = deque()
        self.failed: Counter[int] = Counter()
        self.why = ""

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        for actor in self.actors.values():
            ray.kill(actor)

    def answers(self, calls: Sequence[Call[A]]) -> Iterator[tuple[Call[A], A | Lost]]:
        """As `Crew` has it. Raises InputError where no worker can be started."""
        for slot in range(len(self.actors), min(self.n_slots, len(calls))):
            self.start(slot)
        return _answered(self, calls)

    @cached_property
    def _make(self) -> Callable[[], Any]:
        """Makes an actor."""
        import ray

        needs = {"num_gpus": 1} if self.device == "cuda" else {"num_cpus": 1}
        opening = ray.put(_from_anywhere(self._opening))
        return partial(ray.remote(**needs)(Worker).remote, opening, self.device)

    def start(self, slot: int) -> None:
        self.actors[slot] = self._make()
        self.running[self.actors[slot].version.remote()] = slot, None

    def give(self, call: Call[Any]) -> None:
        slot = self.idle.popleft()
        sent = replace(call, job=tuple(map(_by_address, call.job)))
        self.running[self.actors[slot].answer.remote(sent)] = slot, call

    def start_again(self, slot: int, why: str) -> None:
        """Where an actor could not start; in the end the slot is left."""
        self.failed[slot] += 1
        self.why = why
        if self.failed[slot] < MAX_LOST:
            self.start(slot)

    @property
    def works(self) -> bool:
        """Whether any call runs; not only actors that start."""
        return any(call is not None for _, call in self.running.values())


def _answered(cluster: Cluster, calls: Sequence[Call[A]]) -> Iterator[tuple[Call[A], A | Lost]]:
    waiting, n_lost = deque(calls), Counter[Call[A]]()
    while waiting or cluster.works:
        while waiting and cluster.idle:
            cluster.give(waiting.popleft())
        slot, call, answer = _next_answer(cluster)
        if isinstance(answer, CkptselError):
            raise answer
        if call is None:
            _started(cluster, slot, answer)
        elif not isinstance(answer, Lost):
            cluster.idle.append(slot)
            yield call, answer
        else:
            cluster.start(slot)
            n_lost[call] += 1
            if n_lost[call] < MAX_LOST:
                # For whoever is free first, which is not the one that starts.
                waiting.appendleft(call)
            else:
                yield call, Lost(f"{LOST}: {answer.why}")


def _started(cluster: Cluster, slot: int, answer: "str | Lost | None") -> None:
    """An actor told its version, or was lost before it could."""
    if isinstance(answer, Lost):
        cluster.start_again(slot, answer.why)
    else:
        _check_version(answer)
        cluster.idle.append(slot)


def _next_answer(cluster: Cluster) -> tuple[int, Call[Any] | None, Any]:
    """(slot, call, answer) of whichever comes first. Raises InputError where none can come."""
    import ray

    if not cluster.running:
        raise InputError(f"no worker of the Ray cluster could be started: {cluster.why}")
    ready, _ = ray.wait(list(cluster.running), timeout=None if cluster.works else PATIENCE_S)
    if not ready:
        raise InputError(
            f"the Ray cluster had no room for a worker for {PATIENCE_S / 60:.0f} minutes: other jobs "
            "hold its GPUs or CPUs, or its machines are gone (`ray status`)."
        )
    slot, call = cluster.running.pop(ready[0])
    try:
        return slot, call, ray.get(ready[0])
    except ray.exceptions.RayError as error:
        return slot, call, Lost(_first_line(error))


def _from_anywhere(opening: Opening) -> Opening:
    """With whole paths: an actor runs in a folder of its own."""
    settings, data = opening.settings, Path(opening.data)
    return Opening(
        tuple(_with_paths(checkpoint, _address_of) for checkpoint in opening.checkpoints),
        str(data.absolute()) if data.exists() else opening.data,
        replace(
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


def _slots(settings: Wanted) -> tuple[str, int]:
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
