"""`dataengine serve`: a checkpoint on a socket, behind a gate made from the demonstrations it learned from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from apps.server.gate import ActionGate
from apps.server.server import DEFAULT_PORT, check_exposure, serve
from apps.server.session import ServerCounts
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.control import Policy
from schemas.errors import ArtifactError, UsageError
from schemas.mixes import MixLock, RobotSource
from schemas.refs import Ref
from schemas.rigs import Rig
from schemas.wire import ServerMetadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPolicy:
    """A trained policy with the gate it gets and what it announces."""

    policy: Policy
    gate: ActionGate
    metadata: ServerMetadata


def serve_checkpoint(
    workspace: Workspace,
    checkpoint: Ref,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    embodiment: str | None = None,
    rate_hz: int | None = None,
    on_ready: Callable[[int], None] = lambda port: log.info("listening on port %d", port),
) -> ServerCounts:
    """Serve until SIGINT or SIGTERM. Raises what `open_checkpoint` raises, and UsageError for a host or port."""
    check_exposure(host, token)  # told before the weights are loaded
    served = open_checkpoint(workspace, checkpoint, embodiment=embodiment, rate_hz=rate_hz)
    return serve(
        served.policy,
        gate=served.gate,
        metadata=served.metadata,
        host=host,
        port=port,
        token=token,
        on_ready=on_ready,
    )


def open_checkpoint(
    workspace: Workspace, checkpoint: Ref, *, embodiment: str | None = None, rate_hz: int | None = None
) -> ServedPolicy:
    """Load a checkpoint for serving.

    `embodiment` is needed when the model knows several robots, `rate_hz` when the episodes it learned from are not in
    this workspace. Raises RefError, TrainError, ArtifactError or UsageError.
    """
    path = workspace.find("checkpoints", checkpoint)
    # Imported here: an unknown checkpoint is told before torch is loaded.
    from trainers.policy import load_policy

    policy = load_policy(path, embodiment=embodiment)
    robot = policy.robot
    rig = _demonstrated(workspace, checkpoint, robot.name)
    rate_hz = rate_hz or (None if rig is None else rig.rate_hz)
    if rate_hz is None:
        raise UsageError(
            f"nothing in this workspace says at which rate '{robot.name}' acts. Pull the mix and the episodes of "
            f"{checkpoint}, or give --rate-hz."
        )
    num_actions, num_state = len(robot.normalizer.action_low), len(robot.normalizer.state_mean)
    gate = ActionGate.around(
        robot.normalizer,
        chunk_steps=policy.chunk_steps,
        names=_names(rig, "action", num_actions),
        state_names=_names(rig, "observation.state", num_state),
    )
    gate.check_state(num_state)
    return ServedPolicy(
        policy=policy,
        gate=gate,
        metadata=ServerMetadata(
            policy=policy.name,
            cameras=policy.cameras,
            state_dim=num_state,
            action_dim=num_actions,
            chunk_steps=policy.chunk_steps,
            rate_hz=rate_hz,
        ),
    )


def read_lock(workspace: Workspace, mix: Ref) -> MixLock:
    """The lock of a mix. Raises RefError when it is absent, ArtifactError when it is damaged."""
    path = workspace.find("mixes", mix) / "lock.json"
    try:
        return MixLock.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        raise ArtifactError(f"mix '{mix}' is damaged: its lock.json cannot be read. Build the mix again.") from None


def _demonstrated(workspace: Workspace, checkpoint: Ref, robot: str) -> Rig | None:
    """The rig a robot was recorded with, found through the mix; None when mix or episodes are elsewhere."""
    for row in workspace.record("checkpoints", checkpoint).inputs:
        if row.kind != "mixes" or Ref.parse(row.ref) not in workspace.refs("mixes"):
            continue
        for source in read_lock(workspace, Ref.parse(row.ref)).spec.sources:
            if not isinstance(source, RobotSource) or Ref.parse(source.episodes) not in workspace.refs("episodes"):
                continue
            episodes = EpisodeSet.open(workspace, Ref.parse(source.episodes))
            if episodes.rig.name == robot:
                return episodes.rig
    return None


def _names(rig: Rig | None, feature: str, width: int) -> tuple[str, ...]:
    """The rig's names of a feature's numbers; none where it numbers them or the model was trained on others."""
    names = () if rig is None else rig.features[feature].names
    return names if len(names) == width else ()
