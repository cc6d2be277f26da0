"""Episodes in, proposals with verifier results in the ledger out.

Workers look at episodes; this process alone asks models and writes databases, in short batches. Running it again
proposes only what is missing: an episode that the same family, backend, model and prompts already spoke about, from the
same rig, clock and pictures, judged by the same verifiers, is skipped.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import batched
from typing import Any, Literal

from annotators.annotate_report import AnnotateReport, CallCounts, Tally
from annotators.calls import CallStore
from annotators.estimate import estimate_calls
from annotators.evidence import Evidence
from annotators.families import Family, load_family
from annotators.inputs import covers, numbers_hash, pictures_hash
from annotators.ledger import Ledger
from annotators.observe import Failed, Observation, Observer
from annotators.perception import BoardReadings, model_name
from annotators.placements import MODEL as THINGS_MODEL
from annotators.placements import placement_trace, scene_notes
from annotators.traces import build_trace
from annotators.verifiers import applicable, verify
from annotators.vlm.answers import schema_hash
from annotators.vlm.backends import BackendConfig, Endpoint, Local, Perception, Replay
from annotators.vlm.costs import FREE
from annotators.vlm.endpoint import EndpointClient
from annotators.vlm.local import LocalClient
from annotators.vlm.mending import MendingClient, Settled
from annotators.vlm.protocol import Request, Speaker
from annotators.vlm.questions import questions, understand
from annotators.vlm.replay import ReplayClient
from annotators.vlm.stored import StoredClient
from dataengine.episode_set import EpisodeSet
from dataengine.ray_session import init_ray
from dataengine.workspace import Workspace
from schemas.annotations import Card, FieldName, Proposal, Provenance, VerifierResult
from schemas.content_hashes import ContentHashes
from schemas.errors import BackendError, FamilyError
from schemas.records import RejectedRow
from schemas.refs import Ref
from schemas.scenes import PlacementTrace, SceneNotes

_BATCH = 16  # episodes per ledger transaction and per round of calls, at least: a kill loses at most so many
_KINEMATICS_MODEL = "kinematics@1"


type _Row = tuple[Proposal, tuple[VerifierResult, ...]]


def annotate(
    *,
    episodes: Ref,
    workspace: Workspace,
    family: str = "math-matching",
    backend: BackendConfig,
    ledger: Ledger,
    workers: int | None = None,
    ray_address: str | None = None,
    episode_ids: Sequence[str] | None = None,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> AnnotateReport:
    """Propose for every episode of `episodes` (or those named) what the family asks for.

    Args:
        workers: Ray workers that look at episodes; None = one per CPU, 0 = this process, for debugging.
        on_progress: called with (episodes done, episodes to do).

    Every answer of a model is in the call store before it is parsed, so running it again asks nothing twice.
    Raises RefError, FamilyError for what does not exist; BackendError when no model can be asked at all.
    """
    task = load_family(family)
    opened = EpisodeSet.open(workspace, episodes)
    wanted = [opened.row(name).episode_id for name in (opened.ids() if episode_ids is None else episode_ids)]
    camera = task.camera(opened.cameras)
    inner = _client(backend, workers, ray_address) if _asks(task, backend) else None
    voice = _Voice(
        family=task,
        backend=backend,
        speaker=inner.speaker if inner else None,
        numbers=numbers_hash(opened.rig),
        pictures=pictures_hash(workspace, opened, camera),
    )
    now = {name: hashes for name in wanted if (hashes := opened.row(name).hashes) is not None}
    if not dry_run:
        ledger.refit(now)
    pending = _pending(ledger, voice, opened, wanted, now)
    report = partial(Tally.report, dry_run=dry_run, num_episodes=len(wanted), num_pending=len(pending))
    tally = Tally()
    if dry_run and inner and pending:
        prices = backend.prices if isinstance(backend, Endpoint) else FREE
        planned = estimate_calls(opened, camera, task, inner.speaker, pending, prices)
        return report(tally, run_id=None, planned=planned)
    if dry_run or not pending:
        return report(tally, run_id=None)
    run_id = ledger.start_run(kind="annotate", recipe=voice.recipe(opened))
    with (
        CallStore.open(workspace.calls_url) if inner else nullcontext() as store,
        closing(inner) if isinstance(inner, LocalClient | EndpointClient) else nullcontext(),
    ):
        stored = StoredClient(inner, store) if inner and store else None
        # A recording is replayed as it is.
        client = MendingClient(stored, mends=not isinstance(backend, Replay)) if stored else None
        observer = partial(Observer, opened, camera, wants_crops=inner is not None, things=task.file.things)
        with closing(_observe_all(observer, pending, workers, ray_address)) as observed:
            for batch in batched(observed, _batch_size(backend)):
                rows = list(_propose(batch, voice, client, tally))
                tally.num_new += ledger.add_proposals(run_id, rows, seen=now)
                if on_progress:
                    on_progress(tally.num_proposed + len(tally.failures), len(pending))
                if tally.stopped:
                    break
    if stored and stored.num_made and set(tally.outcomes) <= {"error", "skipped"}:
        reason = tally.stopped or tally.failures[0].reason
        raise BackendError(f"no call was answered ({reason}). Check the server and run it again.")
    if isinstance(inner, EndpointClient):
        _check_end(inner, stored, tally.num_proposed, len(pending))
    counts = CallCounts.of(stored, client, inner.cost if isinstance(inner, EndpointClient) else None)
    return report(tally, run_id=run_id, calls=counts)


def _batch_size(backend: BackendConfig) -> int:
    """Episodes per round of calls: several calls for every place there is, so that few places wait for the last."""
    return max(_BATCH, backend.in_flight * len(backend.urls)) if isinstance(backend, Endpoint) else _BATCH


def _check_end(inner: EndpointClient, stored: StoredClient | None, num_done: int, num_pending: int) -> None:
    """A run that a server left, or that had no money for one call, has failed; one whose budget is used up has not."""
    if inner.is_gone:
        raise BackendError(
            f"{inner.stopped}. {num_done} of {num_pending} episodes are annotated. Check the server and run it again "
            "to go on."
        )
    if inner.stopped and stored and not stored.num_made:
        raise BackendError(f"{inner.stopped}. Not one call was made. Give a larger --budget.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Voice:
    """Who speaks in this run: one family through one backend."""

    family: Family
    backend: BackendConfig
    speaker: Speaker | None  # None where no model is asked
    numbers: str  # see annotators.inputs
    pictures: str

    def provenance(self, name: FieldName, call_keys: tuple[str, ...] = ()) -> Provenance:
        """Who says what a proposal of this field says."""
        if name == "segments":
            return Provenance(backend="kinematics", model=_KINEMATICS_MODEL, inputs_hash=self.numbers)
        if self.family.file.things is not None:
            return Provenance(backend="perception", model=THINGS_MODEL, inputs_hash=self.pictures)
        if self.speaker is None:
            return Provenance(backend="perception", model=model_name(), inputs_hash=self.pictures)
        return Provenance(
            backend=_kind(self.backend),
            model=self.speaker.label,
            prompt_hash=self.family.prompt_hash,
            schema_hash=schema_hash(),
            call_keys=call_keys,
            inputs_hash=self.pictures,
        )

    def recipe(self, opened: EpisodeSet) -> dict[str, Any]:
        """Every argument that changes what is said."""
        speakers = {
            name: self.provenance(name).model_dump(mode="json", exclude={"call_keys"})
            for name in self.family.file.fields
        }
        return {
            "episodes": str(opened.ref),
            "episodes_fingerprint": opened.fingerprint,
            "family": self.family.label,
            "speakers": speakers,
            "verifiers": list(self.family.file.verifiers),
        }


def _asks(task: Family, backend: BackendConfig) -> bool:
    """Whether a model is asked about this family's pictures. Raises FamilyError where none can be."""
    if task.file.things is None:
        return "trace" in task.file.fields
    if not isinstance(backend, Perception):
        raise FamilyError(
            f"family '{task.file.name}' looks for things by colour and outline; no model is asked about them yet. "
            "Leave --vlm and --backend out."
        )
    return False


def _pending(
    ledger: Ledger, voice: _Voice, opened: EpisodeSet, wanted: Sequence[str], now: Mapping[str, ContentHashes]
) -> list[str]:
    """Episodes for which some field, or a judgement of today's verifiers, is missing, stale or of a part only."""
    names = voice.family.file.fields
    spoken: dict[str, set[str]] = {}
    for some in batched(wanted, 500):  # databases limit how many values one query may name
        for stored in ledger.proposals(episode_ids=some):
            proposal = stored.proposal
            said = voice.provenance(proposal.field, proposal.provenance.call_keys) if proposal.field in names else None
            judged = {(result.verifier, result.version) for result in stored.results}
            if (
                proposal.family == voice.family.label
                and proposal.provenance == said
                and judged >= applicable(voice.family.file.verifiers, proposal.field)
                and not stored.misfit(now.get(proposal.episode_id))
                and covers(proposal, opened)
            ):
                spoken.setdefault(proposal.episode_id, set()).add(proposal.field)
    return [name for name in wanted if spoken.get(name, set()) < set(names)]


def _kind(backend: BackendConfig) -> Literal["endpoint", "local", "replay", "perception"]:
    match backend:
        case Endpoint():
            return "endpoint"
        case Local():
            return "local"
        case Replay():
            return "replay"
        case Perception():
            return "perception"


def _client(
    backend: BackendConfig, workers: int | None, ray_address: str | None
) -> EndpointClient | LocalClient | ReplayClient | None:
    match backend:
        case Endpoint():
            return EndpointClient(backend)
        case Local():
            return LocalClient(backend, workers=workers, ray_address=ray_address)
        case Replay():
            return ReplayClient(backend)
        case Perception():
            return None


def _observe_all(
    observer: partial[Observer],
    pending: Sequence[str],
    workers: int | None,
    ray_address: str | None,
) -> Generator[Observation | Failed]:
    """Look at episodes in any order: in Ray actors, or here when `workers` is 0."""
    if workers == 0:
        yield from map(observer().observe, pending)
        return
    ray = init_ray(ray_address)
    from ray.util import ActorPool

    count = min(len(pending), workers or int(ray.cluster_resources().get("CPU", 1)))
    # One CPU each: OCR runs in one thread. A worker that dies (out of memory) is started again and asked again.
    remote = ray.remote(num_cpus=1, max_restarts=2, max_task_retries=2)(Observer)
    actors = [remote.remote(*observer.args, **observer.keywords) for _ in range(count)]
    try:
        yield from ActorPool(actors).map_unordered(lambda actor, name: actor.observe.remote(name), pending)
    finally:
        for actor in actors:
            ray.kill(actor)


def _propose(
    batch: Iterable[Observation | Failed], voice: _Voice, client: MendingClient | None, tally: Tally
) -> Iterator[_Row]:
    """Turn what was seen (and, with a client, what is answered) into judged proposals."""
    seen: list[Observation] = []
    for one in batch:
        if isinstance(one, Failed):
            tally.failures.append(RejectedRow(episode=one.episode_id, reason=one.reason))
        else:
            seen.append(one)
    asked = _ask(seen, voice.family, voice.speaker, client, tally) if client and voice.speaker else {}
    tally.stopped = client.stopped if client else ""
    for one in seen:
        proposals = list(_proposals(one, voice, asked.get(one.episode_id), tally))
        complete = len(proposals) == len(voice.family.file.fields)
        tally.num_proposed += complete
        for proposal, evidence in proposals:
            results = verify(proposal, evidence, voice.family.file.verifiers)
            tally.count(proposal, results)
            yield proposal, results


type _Asked = dict[str, Settled]  # by crop


def _ask(
    seen: Sequence[Observation], family: Family, speaker: Speaker, client: MendingClient, tally: Tally
) -> dict[str, _Asked]:
    """All questions about some episodes: episode -> crop -> answer."""
    by_key: dict[str, list[tuple[str, str]]] = {}
    requests: list[Request] = []
    for one in seen:
        for crop, request in questions(family, speaker, one.crops).items():
            by_key.setdefault(request.key, []).append((one.episode_id, crop))
            requests.append(request)
    answers: dict[str, Settled] = {}
    for settled in client.ask(requests):
        tally.outcomes[settled.answer.outcome] += 1
        answers[settled.request.key] = settled
    asked: dict[str, _Asked] = {}
    for key, places in by_key.items():
        for episode_id, crop in places:
            asked.setdefault(episode_id, {})[crop] = answers[key]
    return asked


def _proposals(
    seen: Observation, voice: _Voice, asked: _Asked | None, tally: Tally
) -> Iterator[tuple[Proposal, Evidence]]:
    """What is proposed about one episode, each with the evidence it is judged by.

    An episode with a question nobody answered gets no trace: it becomes a failure row, and the next run asks again.
    """
    for name in voice.family.file.fields:
        if (placement := seen.evidence.placement) is not None and name != "segments":
            payload = (
                placement_trace(seen.evidence.task, placement)
                if name == "trace"
                else scene_notes(seen.evidence.task, placement, seen.segments)
            )
            yield _whole(seen, voice, name, payload), seen.evidence
            continue
        if name == "segments":
            segments = Proposal(
                episode_id=seen.episode_id,
                stamp_ns=0,
                field="segments",
                family=voice.family.label,
                payload=seen.segments,
                provenance=voice.provenance("segments"),
            )
            yield segments, seen.evidence
            continue
        readings, cards = seen.evidence.readings, seen.cards
        keys: tuple[str, ...] = ()
        if asked is not None:
            silent = [one.answer for one in asked.values() if one.answer.outcome in ("error", "skipped")]
            if silent:
                if not (tally.stopped and silent[0].outcome == "skipped"):  # nothing is wrong with those not asked
                    reason = f"a call got no answer: {silent[0].text}"
                    tally.failures.append(RejectedRow(episode=seen.episode_id, reason=reason))
                continue
            said = understand({crop: one.answer for crop, one in asked.items()}, seen.cards)
            tally.invalid += said.num_invalid
            readings, cards = said.readings, said.cards
            keys = tuple(sorted(key for one in asked.values() for key in one.call_keys))
        yield _trace(seen, voice, readings, cards, keys)


def _whole(seen: Observation, voice: _Voice, name: FieldName, payload: PlacementTrace | SceneNotes) -> Proposal:
    """A proposal about all of an episode that programs made from pictures."""
    return Proposal(
        episode_id=seen.episode_id,
        stamp_ns=0,
        field=name,
        family=voice.family.label,
        payload=payload,
        provenance=voice.provenance(name),
        images=seen.images,
    )


def _trace(
    seen: Observation, voice: _Voice, readings: BoardReadings | None, cards: tuple[Card, ...], keys: tuple[str, ...]
) -> tuple[Proposal, Evidence]:
    first = readings.first if readings else None
    second = readings.second if readings else None
    proposal = Proposal(
        episode_id=seen.episode_id,
        stamp_ns=0,
        field="trace",
        family=voice.family.label,
        payload=build_trace(first or second, cards),
        provenance=voice.provenance("trace", keys),
        images=seen.images,
    )
    return proposal, replace(seen.evidence, readings=readings)
