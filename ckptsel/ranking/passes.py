"""Every candidate scored for every target: checkpoint by checkpoint, so that one loading of its weights
serves all targets; or in several processes, target by target.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from ckptsel.common.progress import Progress
from ckptsel.errors import InputError, listed
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.calls import Call, Crew, Job, Lost, Opening, jobs_of, opening_of
from ckptsel.ranking.processes import Processes
from ckptsel.ranking.ray_engine import Cluster, describe_cluster, n_slots
from ckptsel.ranking.scoring import Outcome, ScoringSpec, is_kept, keep, score_candidates
from ckptsel.ranking.turns import Search
from ckptsel.ranking.unusable import fail_copies
from ckptsel.ranking.workspace import Workspace
from ckptsel.results.scores import ScoreResult
from ckptsel.scores import Score

Results = dict[str, dict[str, ScoreResult]]
Scales = dict[str, dict[str, float]]


@dataclass
class Scored:
    """What came of all candidates on one target.

    candidates: with new problems marked. results: by candidate and score. scales: by candidate and
    stage. unseen: candidates that were not looked at, by name.
    """

    candidates: Sequence[Candidate]
    results: Results = field(default_factory=dict)
    scales: Scales = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    left_out: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    unseen: frozenset[str] = frozenset()

    def add(self, outcome: Outcome) -> None:
        if outcome.problem is not None:
            self.problems[outcome.name] = outcome.problem
            return
        self.results[outcome.name] = outcome.results
        self.scales[outcome.name] = outcome.scales
        for score, reason in outcome.left_out.items():
            self.left_out.setdefault((score, reason), []).append(outcome.name)


def score_all(
    candidates: Sequence[Candidate],
    scores: Sequence[Score],
    workspaces: Sequence[Workspace],
    search: Search | None = None,
) -> Iterator[Scored]:
    """What came of the candidates in each workspace, which are those of several targets of one run.

    search: chooses which are looked at, for a single workspace; without one all are.
    Raises NothingToRank where no candidate of a target is left, and what `score_candidates` raises.
    """
    usable = usable_of(candidates)
    specs = [
        ScoringSpec(
            usable,
            workspace.target.spec,
            dataclasses.replace(workspace.settings, model=workspace.encoder.name),
            tuple(score.name for score in scores),
        )
        for workspace in workspaces
    ]
    found = [Scored(candidates) for _ in workspaces]
    n = len(usable) * len(specs) if search is None else search.n_candidates
    quiet = workspaces[0].quiet
    with Progress("rank", n, quiet=quiet) as progress:
        for workspace in workspaces:
            workspace.pulse = progress.pulse
            workspace.n_results = len(usable) * len(scores)
        for place, outcome in _outcomes(specs, workspaces, search or [usable]):
            found[place].add(outcome)
            if search is not None:
                search.hear(outcome)
            progress.advance(outcome.name if outcome.problem is None else f"{outcome.name} failed")
    for scored, workspace in zip(found, workspaces, strict=True):
        if search is not None:
            scored.unseen = search.unseen
        try:
            _finish(scored, workspace)
        except InputError as error:
            if len(specs) == 1:
                raise
            raise type(error)(
                f"{workspace.target.spec}: {error.lines[0]}", *error.lines[1:]
            ) from error
        yield scored


def _finish(scored: Scored, workspace: Workspace) -> None:
    """Notes what was left out, and marks what failed, copies too."""
    workspace.notes += [
        f"{score} of {listed(names, 3)} is left out: {reason}"
        for (score, reason), names in scored.left_out.items()
    ]
    problems = scored.problems
    marked = [c.failed(problems[c.name]) if c.name in problems else c for c in scored.candidates]
    unseen = scored.unseen
    scored.unseen |= {c.name for c in marked if c.copy_of in unseen}
    seen = [c for c in marked if c.name not in scored.unseen]
    finished = {c.name: c for c in fail_copies(seen, workspace.settings.strict)}
    scored.candidates = [finished.get(c.name, c) for c in marked]


def n_at_once(workspace: Workspace) -> int:
    """How many checkpoints are scored side by side."""
    if workspace.settings.engine == "ray":
        return n_slots(workspace.settings)
    return len(workspace.devices)


def usable_of(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those that are scored: no copies."""
    return tuple(c for c in candidates if c.problem is None and c.copy_of is None)


def _outcomes(
    specs: Sequence[ScoringSpec],
    workspaces: Sequence[Workspace],
    turns: Iterable[Sequence[Candidate]],
) -> Iterator[tuple[int, Outcome]]:
    """(place of the target, outcome) of every candidate of each turn, scored here, in other processes
    or, all at once, on a cluster."""
    devices = workspaces[0].devices[: len(jobs_of(specs[0].candidates))]
    targets = list(enumerate(zip(specs, workspaces, strict=True)))
    if workspaces[0].settings.engine == "ray":
        for place, (spec, workspace) in targets:
            for outcome in _outcomes_of_cluster(spec, workspace, turns):
                yield place, outcome
        return
    if len(devices) < 2:
        for job, after in (pair for turn in turns for pair in _with_next(jobs_of(turn))):
            workspaces[0].following = after[0].checkpoint if after else None
            for place, (spec, workspace) in targets:
                part = dataclasses.replace(spec, candidates=job)
                for outcome in score_candidates(part, workspace):
                    yield place, outcome
        return
    for place, (spec, workspace) in targets:
        # Decoded here, for all of them.
        workspace.target  # noqa: B018
        opening = _opening_of(spec, workspace)
        with workspace.timed("processes"), Processes(opening, devices) as crew:
            for turn in turns:
                for outcome in _outcomes_of_crew(crew, spec, turn):
                    yield place, outcome


def _with_next(jobs: Sequence[Job]) -> Iterator[tuple[Job, Job]]:
    """Each job and the one after it; after the last there is none, ()."""
    return pairwise([*jobs, ()])


def _outcomes_of_cluster(
    spec: ScoringSpec, workspace: Workspace, turns: Iterable[Sequence[Candidate]]
) -> Iterator[Outcome]:
    """What is kept here is not scored again, and what comes from there is kept here: the nodes may
    have caches of their own."""
    note = f"scored on {describe_cluster(workspace.settings)}"
    with workspace.timed("ray"), Cluster(_opening_of(spec, workspace)) as crew:
        for turn in turns:
            kept = [candidate for candidate in turn if is_kept(candidate, spec, workspace)]
            yield from score_candidates(
                dataclasses.replace(spec, candidates=tuple(kept)), workspace
            )
            left = {c.name: c for c in turn if c not in kept}
            if left and note not in workspace.notes:
                workspace.notes.append(note)
            for outcome in _outcomes_of_crew(crew, spec, list(left.values())):
                keep(outcome, left[outcome.name], workspace)
                yield outcome


def _opening_of(spec: ScoringSpec, workspace: Workspace) -> Opening:
    return opening_of(workspace, [job[0].checkpoint for job in jobs_of(spec.candidates)])


def _outcomes_of_crew(
    crew: Crew, spec: ScoringSpec, candidates: Sequence[Candidate]
) -> Iterator[Outcome]:
    # Each call is sent by itself, and has its candidates.
    score = partial(_score, dataclasses.replace(spec, candidates=()))
    for call, answer in crew.answers([Call(score, job) for job in jobs_of(candidates)]):
        if isinstance(answer, Lost):
            yield from (Outcome(candidate.name, problem=answer.why) for candidate in call.job)
        else:
            yield from answer


def _score(spec: ScoringSpec, job: Job, workspace: Workspace) -> list[Outcome]:
    return list(score_candidates(dataclasses.replace(spec, candidates=job), workspace))
