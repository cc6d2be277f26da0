"""Episodes in, proposals with verifier results in the ledger out.

Workers look at episodes; this process alone asks models and writes databases, in short batches. Running it again
proposes only what is missing: an episode that the same family, backend, model and prompts already spoke about, from the
same rig, clock and pictures, judged by the same verifiers, is skipped.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from functools import partial
from itertools import batched

from annotators.ahead import ahead
from annotators.annotate_report import AnnotateReport, CallCounts, Tally
from annotators.blank import add_blanks
from annotators.calls import CallStore
from annotators.estimate import estimate_calls
from annotators.families import Family, load_family
from annotators.ledger import Ledger
from annotators.observe import Failed, Observation, Observer
from annotators.propose import Asked, proposals_about, trace_told
from annotators.verifiers import verify
from annotators.vlm import blank_probe
from annotators.vlm.backends import BackendConfig, Endpoint, Replay
from annotators.vlm.blank_probe import BlankProbe
from annotators.vlm.costs import FREE
from annotators.vlm.endpoint import EndpointClient
from annotators.vlm.local import LocalClient
from annotators.vlm.mending import MendingClient, Settled
from annotators.vlm.protocol import Request, Speaker
from annotators.vlm.questions import questions_about
from annotators.vlm.rewording import RETELLING, retelling_question
from annotators.vlm.stored import StoredClient
from annotators.voice import Voice, asks, open_client, spoken
from dataengine.episode_set import EpisodeSet
from dataengine.ray_session import init_ray
from dataengine.workspace import Workspace
from schemas.annotations import Proposal, VerifierResult
from schemas.errors import BackendError
from schemas.records import RejectedRow
from schemas.refs import Ref

_BATCH = 16  # episodes per ledger transaction and per round of calls, at least: a kill loses at most so many


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
    blank_share: float = blank_probe.SHARE,
    leaves_to_people: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> AnnotateReport:
    """Propose for every episode of `episodes` (or those named) what the family asks for.

    Args:
        workers: Ray workers that look at episodes; None = one per CPU, 0 = this process, for debugging.
        blank_share: of all calls, those repeated with blank pictures (annotators.vlm.blank_probe); 0: none.
        leaves_to_people: whether what could not be said becomes an item that people write from nothing; False where
            somebody else is asked after this run.
        on_progress: called with (episodes done, episodes to do).

    Every answer of a model is in the call store before it is parsed, so running it again asks nothing twice.
    Raises RefError, FamilyError for what does not exist; BackendError when no model can be asked at all.
    """
    task = load_family(family)
    opened = EpisodeSet.open(workspace, episodes)
    wanted = [opened.row(name).episode_id for name in (opened.ids() if episode_ids is None else episode_ids)]
    inner = open_client(backend, workers, ray_address) if asks(task, backend) else None
    voice = Voice.of(workspace, opened, task, backend, inner.speaker if inner else None)
    if isinstance(backend, Replay):  # a recording holds no calls but those that were asked
        blank_share = 0.0
    now = {name: hashes for name in wanted if (hashes := opened.row(name).hashes) is not None}
    if not dry_run:
        ledger.refit(now)
    there = spoken(ledger, voice, opened, wanted, now)
    pending = [name for name in wanted if set(there.get(name, ())) < set(voice.fields)]
    report = partial(Tally.report, dry_run=dry_run, num_episodes=len(wanted), num_pending=len(pending))
    tally = Tally()
    if dry_run and inner and pending:
        prices = backend.prices if isinstance(backend, Endpoint) else FREE
        planned = estimate_calls(opened, voice.camera, task, inner.speaker, pending, prices, blank_share)
        return report(tally, run_id=None, planned=planned)
    if not pending and not dry_run:
        _doubt(ledger, voice, opened, wanted)  # a run that was killed may not have come to it
    if dry_run or not pending:
        return report(tally, run_id=None)
    run_id = ledger.start_run(kind="annotate", recipe=voice.recipe(opened))
    probe = BlankProbe(blank_share)
    with (
        CallStore.open(workspace.calls_url) if inner else nullcontext() as store,
        closing(inner) if isinstance(inner, LocalClient | EndpointClient) else nullcontext(),
    ):
        stored = StoredClient(inner, store) if inner and store else None
        # A recording is replayed as it is.
        client = MendingClient(stored, mends=not isinstance(backend, Replay)) if stored else None
        observer = partial(
            Observer,
            opened,
            voice.camera,
            wants_crops=inner is not None,
            wants_sheets=voice.asks_about("segments"),
            wants_scene=inner is not None and task.is_open,
            things=task.file.things,
        )
        looked = _observe_all(observer, pending, workers, ray_address)
        if client:  # the next episodes are looked at while the model answers about these
            if workers != 0:
                init_ray(ray_address)  # in this thread: Ray wants to be started where signals arrive
            looked = ahead(looked, _batch_size(backend))
        with closing(looked) as observed:
            for batch in batched(observed, _batch_size(backend)):
                rows = list(_propose(batch, voice, client, probe, tally))
                tally.num_new += ledger.add_proposals(run_id, rows, seen=now)
                if on_progress:
                    on_progress(tally.num_proposed + len(tally.failures), len(pending))
                if tally.stopped:
                    break
    _doubt(ledger, voice, opened, wanted)
    if stored and stored.num_made and set(tally.outcomes) <= {"error", "skipped"}:
        reason = tally.stopped or tally.failures[0].reason
        raise BackendError(f"no call was answered ({reason}). Check the server and run it again.")
    if isinstance(inner, EndpointClient):
        _check_end(inner, stored, tally.num_proposed, len(pending))
    if leaves_to_people and not tally.stopped:
        tally.num_blank = _leave_to_people(opened, ledger, voice, [row.episode for row in tally.failures])
    counts = CallCounts.of(stored, client, probe, inner.cost if isinstance(inner, EndpointClient) else None)
    return report(tally, run_id=run_id, calls=counts)


def _leave_to_people(opened: EpisodeSet, ledger: Ledger, voice: Voice, failed: Sequence[str]) -> int:
    """Episodes that nobody could say anything about wait for people, rather than be missing; another run asks again."""
    names = sorted(set(failed))
    task = voice.family
    return sum(add_blanks(opened, ledger, field=field, family=task, episode_ids=names) for field in voice.fields)


def _batch_size(backend: BackendConfig) -> int:
    """Episodes per round of calls: several calls for every place there is, so that few places wait for the last."""
    return max(_BATCH, backend.in_flight * len(backend.urls)) if isinstance(backend, Endpoint) else _BATCH


def _doubt(ledger: Ledger, voice: Voice, opened: EpisodeSet, wanted: Sequence[str]) -> None:
    """A model that was caught not looking once: what else it said of these episodes can not be known to be seen."""
    if voice.speaker is None:
        return
    said = [
        stored
        for some in batched(wanted, 500)  # databases limit how many values one query may name
        for stored in ledger.proposals(episode_ids=some)
        if voice.said(stored.proposal)
    ]
    doubt = blank_probe.doubt([one for stored in said for one in stored.results])
    unmarked = [stored for stored in said if not any(one.verifier == blank_probe.VERIFIER for one in stored.results)]
    if doubt and unmarked:
        run_id = ledger.start_run(kind="annotate", recipe=voice.recipe(opened))
        ledger.add_proposals(run_id, [(stored.proposal, (doubt,)) for stored in unmarked])


def _check_end(inner: EndpointClient, stored: StoredClient | None, num_done: int, num_pending: int) -> None:
    """A run that a server left, or that had no money for one call, has failed; one whose budget is used up has not."""
    if inner.is_gone:
        raise BackendError(
            f"{inner.stopped}. {num_done} of {num_pending} episodes are annotated. Check the server and run it again "
            "to go on."
        )
    if inner.stopped and stored and not stored.num_made:
        raise BackendError(f"{inner.stopped}. Not one call was made. Give a larger --budget.")


def _observe_all(
    observer: partial[Observer], pending: Sequence[str], workers: int | None, ray_address: str | None
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
    batch: Iterable[Observation | Failed],
    voice: Voice,
    client: MendingClient | None,
    probe: BlankProbe,
    tally: Tally,
) -> Iterator[_Row]:
    """Turn what was seen (and, with a client, what is answered) into judged proposals."""
    seen: list[Observation] = []
    for one in batch:
        if isinstance(one, Failed):
            tally.failures.append(RejectedRow(episode=one.episode_id, reason=one.reason))
        else:
            seen.append(one)
    asked = _asked(seen, voice.family, voice.speaker, client, tally) if client and voice.speaker else {}
    looking = probe.look({name: list(one.values()) for name, one in asked.items()}, client) if client else {}
    tally.stopped = client.stopped if client else ""
    for one in seen:
        proposals = list(proposals_about(one, voice, asked.get(one.episode_id), tally))
        complete = len(proposals) == len(voice.fields)
        tally.num_proposed += complete
        for proposal, evidence in proposals:
            results = verify(proposal, evidence, voice.family.file.verifiers)
            if voice.asks_about(proposal.field) and one.episode_id in looking:
                results = (*results, looking[one.episode_id])
            tally.count(proposal, results)
            yield proposal, results


def _asked(
    seen: Sequence[Observation], family: Family, speaker: Speaker, client: MendingClient, tally: Tally
) -> dict[str, Asked]:
    """All questions about some episodes, and in a second round those about words that only now are there."""
    asked = _ask({one.episode_id: questions_about(family, speaker, one) for one in seen}, client, tally)
    if RETELLING not in family.prompts:
        return asked
    traces = {
        one.episode_id: trace_told(one, {look: had.answer for look, had in asked.get(one.episode_id, {}).items()})
        for one in seen
        if not any(had.answer.outcome in ("error", "skipped") for had in asked.get(one.episode_id, {}).values())
    }
    more = _ask({name: retelling_question(family, speaker, trace) for name, trace in traces.items()}, client, tally)
    return {name: {**had, **more.get(name, {})} for name, had in asked.items()}


def _ask(wanted: Mapping[str, Mapping[str, Request]], client: MendingClient, tally: Tally) -> dict[str, Asked]:
    """Questions by episode and by what they are about -> their answers by the same."""
    by_key: dict[str, list[tuple[str, str]]] = {}
    requests: list[Request] = []
    for episode_id, questions in wanted.items():
        for look, request in questions.items():
            by_key.setdefault(request.key, []).append((episode_id, look))
            requests.append(request)
    answers: dict[str, Settled] = {}
    for settled in client.ask(requests):
        tally.outcomes[settled.answer.outcome] += 1
        answers[settled.request.key] = settled
    asked: dict[str, Asked] = {}
    for key, places in by_key.items():
        for episode_id, look in places:
            asked.setdefault(episode_id, {})[look] = answers[key]
    return asked
