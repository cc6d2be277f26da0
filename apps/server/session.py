"""One robot's conversation with the policy: a frame in, a frame out, no socket in sight."""

import asyncio
import logging
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from apps.server.codec import decode, encode
from apps.server.gate import ActionGate
from schemas.control import Chunk, Observation, Policy
from schemas.errors import WireError
from schemas.wire import (
    ChunkReply,
    ErrorCode,
    ErrorReply,
    InferRequest,
    ResetRequest,
    ServerMetadata,
    ServerTiming,
    reply_to_wire,
    request_from_wire,
)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ServerCounts:
    """What a server has done since it started."""

    connections: int = 0
    chunks: int = 0
    rejected_chunks: int = 0
    refused_messages: int = 0
    aborted_trials: int = 0
    policy_errors: int = 0


class PolicyDesk:
    """One policy, asked by one robot at a time, in a thread of its own so that the sockets stay alive meanwhile.

    A policy remembers its trial. When another robot asks, it is reset first: two robots at once are slower than one,
    never mixed up.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")
        self._last: object = None

    async def infer(self, robot: object, observation: Observation) -> ChunkReply:
        """The chunk and its timing."""
        asked = time.perf_counter()
        async with self._turn:
            started = time.perf_counter()
            chunk = await asyncio.get_running_loop().run_in_executor(self._thread, self._infer, robot, observation)
            ended = time.perf_counter()
        timing = ServerTiming(queue_ms=(started - asked) * 1e3, infer_ms=(ended - started) * 1e3)
        return ChunkReply(chunk=chunk, timing=timing)

    async def reset(self, robot: object) -> None:
        """A new trial of this robot."""
        async with self._turn:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._reset, robot)

    def close(self) -> None:
        """Waits for the inference under way."""
        self._thread.shutdown(wait=True)

    def _infer(self, robot: object, observation: Observation) -> Chunk:
        if self._last is not robot:
            self._reset(robot)
        return self.policy.infer(observation)

    def _reset(self, robot: object) -> None:
        self.policy.reset()
        self._last = robot


class Session:
    """One connection: checks each message, asks the policy, holds the chunk against the gate."""

    def __init__(
        self, desk: PolicyDesk, *, gate: ActionGate, metadata: ServerMetadata, counts: ServerCounts, max_bytes: int
    ) -> None:
        self._desk = desk
        self._gate = gate
        self._metadata = metadata
        self._counts = counts
        self._max_bytes = max_bytes
        self._rejects_in_a_row = 0

    async def answer(self, frame: bytes | str) -> bytes | str:
        """The frame to send back: bytes for a chunk, text for an error."""
        try:
            if isinstance(frame, str):
                raise WireError("a text frame is not taken. Send one msgpack map per binary frame.")
            request = request_from_wire(decode(frame, max_bytes=self._max_bytes), self._metadata)
        except WireError as error:
            self._counts.refused_messages += 1
            return _error("bad_message", str(error))
        try:
            match request:
                case ResetRequest():
                    self._rejects_in_a_row = 0
                    await self._desk.reset(self)
                    return encode({"type": "reset"})
                case InferRequest(observation=observation):
                    return await self._infer(observation)
        except Exception:
            # The policy is foreign code: whatever it raises must not take the other robots' server down, and its
            # traceback (paths, tensors) is for the log, not for the network.
            incident = secrets.token_hex(4)
            self._counts.policy_errors += 1
            log.exception("policy failed, incident %s", incident)
            return _error("policy_error", f"the policy failed. See incident {incident} in the server's log.")

    async def _infer(self, observation: Observation) -> bytes | str:
        if self._rejects_in_a_row >= self._gate.max_rejects:
            return _error("trial_aborted", "this trial is over after too many rejected chunks. Reset to start another.")
        reply = await self._desk.infer(self, observation)
        reason = self._gate.refusal(reply.chunk.actions, observation.state)
        if reason is None:
            self._rejects_in_a_row = 0
            self._counts.chunks += 1
            return encode(reply_to_wire(reply))
        self._rejects_in_a_row += 1
        self._counts.rejected_chunks += 1
        log.info("chunk rejected (%d in a row): %s", self._rejects_in_a_row, reason)
        if self._rejects_in_a_row < self._gate.max_rejects:
            sentence = f"{reason}. The robot must not move on this chunk; ask again."
            return _refused("rejected_chunk", sentence, reply)
        self._counts.aborted_trials += 1
        sentence = f"{reason}; {self._rejects_in_a_row} chunks in a row were rejected. Stop the trial."
        return _refused("trial_aborted", sentence, reply)


def _refused(code: ErrorCode, message: str, reply: ChunkReply) -> str:
    """The chunk stays here; what the policy said goes out, because people read it to see what went wrong."""
    refusal = ErrorReply(code=code, message=message, reasoning=reply.chunk.reasoning, infer_ms=reply.timing.infer_ms)
    return refusal.model_dump_json()


def _error(code: ErrorCode, message: str) -> str:
    return ErrorReply(code=code, message=message).model_dump_json()
