"""Who speaks in a run of `annotate`: one family through one backend, and what it has said already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, Literal

from annotators.families import Family
from annotators.inputs import covers, numbers_hash, pictures_hash
from annotators.ledger import Ledger, StoredProposal
from annotators.moves import basis_words
from annotators.perception import model_name
from annotators.placements import MODEL as THINGS_MODEL
from annotators.verifiers import applicable
from annotators.vlm.answers import Question, schema_hash
from annotators.vlm.backends import BackendConfig, Endpoint, Local, Perception, Replay
from annotators.vlm.endpoint import EndpointClient
from annotators.vlm.local import LocalClient
from annotators.vlm.mending import Settled
from annotators.vlm.open_scene import QUESTIONS as OPEN_QUESTIONS
from annotators.vlm.protocol import Speaker
from annotators.vlm.replay import ReplayClient
from annotators.vlm.rewording import LOOK, RETELLING
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import FieldName, Proposal, Provenance
from schemas.content_hashes import ContentHashes
from schemas.errors import FamilyError

_KINEMATICS = "kinematics@3"
WORDED: tuple[Question, ...] = (LOOK, RETELLING)  # asked about words alone, for the notes about a scene

type Client = EndpointClient | LocalClient | ReplayClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Who speaks in this run: one family through one backend."""

    family: Family
    backend: BackendConfig
    speaker: Speaker | None  # None where no model is asked
    camera: str | None  # None where nobody looks at pictures
    kinematics: str  # the program that cuts segments, and what its moves rest on
    numbers: str  # see annotators.inputs
    pictures: str

    @classmethod
    def of(
        cls, workspace: Workspace, opened: EpisodeSet, family: Family, backend: BackendConfig, speaker: Speaker | None
    ) -> "Voice":
        """The voice of a backend about these episodes. Raises FamilyError where the camera it needs is missing."""
        # Without a model nobody looks at the pictures of a family that reads no trace.
        looks = speaker is not None or "trace" in family.file.fields or family.file.things is not None
        camera = family.camera(opened.cameras) if looks else None
        return cls(
            family=family,
            backend=backend,
            speaker=speaker,
            camera=camera,
            kinematics=f"{_KINEMATICS}, {basis_words(opened.rig)}",
            numbers=numbers_hash(opened.rig),
            pictures=pictures_hash(workspace, opened, camera),
        )

    @property
    def fields(self) -> tuple[FieldName, ...]:
        """What of the family's fields this voice speaks about: a scene that only a model can see waits for one."""
        names = self.family.file.fields
        return tuple(one for one in names if one != "scene" or self.speaker is not None or not self.family.is_open)

    def asks_about(self, name: FieldName) -> bool:
        """Whether a model is asked about a field."""
        if self.speaker is None:
            return False
        return name in ("trace", "scene") or "steps" in self.family.prompts

    def said(self, proposal: Proposal) -> bool:
        """Whether a proposal is this voice's, of these prompts, and a model was asked for it."""
        keys = proposal.provenance.call_keys
        return (
            proposal.family == self.family.label
            and self.asks_about(proposal.field)
            and proposal.provenance == self.provenance(proposal.field, keys)
        )

    def provenance(self, name: FieldName, call_keys: tuple[str, ...] = ()) -> Provenance:
        """Who says what a proposal of this field says."""
        if not self.asks_about(name) and name == "segments":
            return Provenance(backend="kinematics", model=self.kinematics, inputs_hash=self.numbers)
        if self.family.file.things is not None and self.speaker is None:
            return Provenance(backend="perception", model=THINGS_MODEL, inputs_hash=self.pictures)
        if self.speaker is None:
            return Provenance(backend="perception", model=model_name(), inputs_hash=self.pictures)
        return Provenance(
            backend=kind_of(self.backend),
            model=self.speaker.label,
            prompt_hash=self.family.prompt_hash,
            schema_hash=schema_hash(*self._questions(name)),
            call_keys=call_keys,
            inputs_hash=self.pictures,
        )

    def calls(self, name: FieldName, asked: Mapping[str, Settled]) -> tuple[str, ...]:
        """The keys of those calls that a field follows from."""
        about = self._questions(name)
        return tuple(sorted(key for one in asked.values() if one.request.schema_name in about for key in one.call_keys))

    def _questions(self, name: FieldName) -> tuple[Question, ...]:
        """What is asked about a field."""
        prompts = self.family.prompts
        worded = tuple(one for one in WORDED if name == "scene" and one in prompts)
        if self.family.file.things is not None:
            return ("things", *worded)
        if name == "segments":
            return ("steps", "held")
        if self.family.is_open:
            return (*(one for one in OPEN_QUESTIONS if one in prompts), *worded)
        return ("board", "cards", *worded)

    def recipe(self, opened: EpisodeSet) -> dict[str, Any]:
        """Every argument that changes what is said."""
        speakers = {name: self.provenance(name).model_dump(mode="json", exclude={"call_keys"}) for name in self.fields}
        return {
            "episodes": str(opened.ref),
            "episodes_fingerprint": opened.fingerprint,
            "family": self.family.label,
            "speakers": speakers,
            "verifiers": list(self.family.file.verifiers),
        }


def spoken(
    ledger: Ledger, voice: Voice, opened: EpisodeSet, wanted: Sequence[str], now: Mapping[str, ContentHashes]
) -> dict[str, dict[str, StoredProposal]]:
    """What a voice has said of these episodes, field by field, judged by today's verifiers and not stale."""
    names, of_things = voice.fields, voice.family.file.things is not None
    found: dict[str, dict[str, StoredProposal]] = {}
    for some in batched(wanted, 500):  # databases limit how many values one query may name
        for stored in ledger.proposals(episode_ids=some):
            proposal = stored.proposal
            said = voice.provenance(proposal.field, proposal.provenance.call_keys) if proposal.field in names else None
            judged = {(result.verifier, result.version) for result in stored.results}
            if (
                proposal.family == voice.family.label
                and proposal.provenance == said
                and judged >= applicable(voice.family.file.verifiers, proposal.field, of_things=of_things)
                and not stored.misfit(now.get(proposal.episode_id))
                and covers(proposal, opened)
            ):
                found.setdefault(proposal.episode_id, {})[proposal.field] = stored
    return found


def asks(family: Family, backend: BackendConfig) -> bool:
    """Whether a model is asked about this family's pictures. Raises FamilyError where none can be."""
    if family.file.things is not None and not family.prompts and not isinstance(backend, Perception):
        raise FamilyError(
            f"family '{family.file.name}' has no prompt 'things', so no model can be asked about its pictures. "
            "Leave --vlm and --backend out, or add the prompt."
        )
    return bool(family.prompts)


def speaker_of(backend: BackendConfig) -> Speaker | None:
    """Who answers there, without asking; None where no model does."""
    match backend:
        case Endpoint():
            return backend.speaker
        case Local():
            return backend.speaker()
        case Replay():
            return ReplayClient(backend).speaker
        case Perception():
            return None


def kind_of(backend: BackendConfig) -> Literal["endpoint", "local", "replay", "perception"]:
    """What provenance calls a backend."""
    match backend:
        case Endpoint():
            return "endpoint"
        case Local():
            return "local"
        case Replay():
            return "replay"
        case Perception():
            return "perception"


def open_client(backend: BackendConfig, workers: int | None, ray_address: str | None) -> Client | None:
    """Who is asked; None where nobody is."""
    match backend:
        case Endpoint():
            return EndpointClient(backend)
        case Local():
            return LocalClient(backend, workers=workers, ray_address=ray_address)
        case Replay():
            return ReplayClient(backend)
        case Perception():
            return None
