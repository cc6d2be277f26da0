"""The policy server over real sockets: who gets in, what comes back, and that it lives on."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from apps.robot.client import RefusedError, RobotClient
from apps.robot.yardsticks import RandomPolicy, RecordedPolicy
from apps.server.codec import decode, encode
from apps.server.gate import ActionGate
from apps.server.server import PolicyServer, RunningServer, running_server, serve
from schemas.control import Chunk, Observation, Policy
from schemas.errors import UsageError, WireError
from schemas.normalization import Normalizer
from schemas.wire import InferRequest, ServerMetadata, request_to_wire

STEPS = 4
TOKEN = "a-token-of-enough-characters"
METADATA = ServerMetadata(policy="t", cameras=("high",), state_dim=3, action_dim=3, chunk_steps=STEPS, rate_hz=50)


def _three(value: float) -> np.ndarray:
    return np.full(3, value, dtype=np.float32)


GATE = ActionGate(
    lower=_three(-1),
    upper=_three(1),
    max_start_jump=_three(0.3),
    max_step=_three(0.1),
    chunk_steps=STEPS,
    max_rejects=3,
)


def _random() -> RandomPolicy:
    return RandomPolicy(lower=_three(-1), upper=_three(1), max_step=_three(0.05), chunk_steps=STEPS, seed=1)


def _seen(value: float = 0.0) -> Observation:
    return Observation(images={"high": np.zeros((6, 8, 3), dtype=np.uint8)}, state=_three(value), prompt="go")


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server(_random(), gate=GATE, metadata=METADATA) as running:
        yield running


def _recorded(num_steps: int = 12) -> RecordedPolicy:
    walk = (np.arange(num_steps, dtype=np.float32)[:, None] * _three(0.01)).astype(np.float32)
    policy = RecordedPolicy(lambda name: walk, Normalizer.fit("arm", walk, walk), chunk_steps=STEPS, stride=2)
    policy.select("one")
    return policy


def test_a_robot_gets_metadata_then_a_chunk_that_starts_where_it_is(server: RunningServer) -> None:
    with RobotClient(server.url) as client:
        assert client.metadata == METADATA
        reply = client.infer(_seen(0.5))
        assert reply.chunk.actions.shape == (STEPS, 3)
        assert np.abs(reply.chunk.actions[0] - 0.5).max() <= 0.05
        assert reply.timing.infer_ms > 0
    assert server.counts.chunks == 1


def test_a_recording_comes_back_in_strides_and_holds_its_last_action() -> None:
    with running_server(_recorded(5), gate=GATE, metadata=METADATA) as running, RobotClient(running.url) as client:
        firsts = [client.infer(_seen()).chunk for _ in range(4)]
        np.testing.assert_allclose([chunk.actions[0, 0] for chunk in firsts], [0, 0.02, 0.04, 0.04], atol=1e-6)
        np.testing.assert_allclose(firsts[1].actions[:, 0], [0.02, 0.03, 0.04, 0.04], atol=1e-6)
        assert firsts[1].reasoning == "Replays one from step 2 of 5."
        client.reset()
        assert client.infer(_seen()).chunk.reasoning == "Replays one from step 0 of 5."


def test_a_new_connection_starts_the_policy_anew() -> None:
    with running_server(_recorded(), gate=GATE, metadata=METADATA) as running:
        for _ in range(2):
            with RobotClient(running.url) as client:
                assert "from step 0" in client.infer(_seen()).chunk.reasoning
                assert "from step 2" in client.infer(_seen()).chunk.reasoning


class _Slow:
    """Counts how many ask at once; answers with the state that it was asked for."""

    name = "slow"

    def __init__(self) -> None:
        self.inside = self.most = 0

    def infer(self, observation: Observation) -> Chunk:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.02)
        self.inside -= 1
        return Chunk(actions=np.repeat(observation.state[None], STEPS, axis=0), reasoning="")

    def reset(self) -> None:
        pass


def test_two_robots_at_once_get_their_own_answers_one_inference_at_a_time() -> None:
    policy, wrong = _Slow(), []

    def drive(url: str, value: float) -> None:
        with RobotClient(url) as client:
            for _ in range(8):
                actions = client.infer(_seen(value)).chunk.actions
                if not np.allclose(actions, value):
                    wrong.append((value, actions))

    with running_server(policy, gate=GATE, metadata=METADATA) as running:
        robots = [threading.Thread(target=drive, args=(running.url, value)) for value in (0.25, -0.5)]
        for robot in robots:
            robot.start()
        for robot in robots:
            robot.join()
        assert running.counts.chunks == 16
    assert not wrong
    assert policy.most == 1


class _Held(_Slow):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def infer(self, observation: Observation) -> Chunk:
        self.asked.set()
        self.go_on.wait(60)
        return super().infer(observation)


def test_a_slow_policy_does_not_block_the_health_check() -> None:
    policy = _Held()
    with running_server(policy, gate=GATE, metadata=METADATA) as running, RobotClient(running.url) as client:
        robot = threading.Thread(target=client.infer, args=(_seen(),))
        robot.start()
        try:
            assert policy.asked.wait(60)
            with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/healthz", timeout=30) as answer:
                assert (answer.status, answer.read()) == (200, b"OK\n")
            assert robot.is_alive()
        finally:
            policy.go_on.set()
            robot.join()


class _Jumping:
    """Answers far away from where the robot is."""

    name = "jumping"

    def infer(self, observation: Observation) -> Chunk:
        return Chunk(actions=np.full((STEPS, 3), 0.9, dtype=np.float32), reasoning="jump")

    def reset(self) -> None:
        pass


def test_rejected_chunks_are_named_and_three_in_a_row_end_the_trial() -> None:
    with running_server(_Jumping(), gate=GATE, metadata=METADATA) as running, RobotClient(running.url) as client:
        codes = []
        for _ in range(4):
            with pytest.raises(RefusedError) as refused:
                client.infer(_seen())
            codes.append(refused.value.code)
        assert codes == ["rejected_chunk", "rejected_chunk", "trial_aborted", "trial_aborted"]
        client.reset()
        with pytest.raises(RefusedError, match=r"starts at 0.9000 while the robot is at 0.0000") as refused:
            client.infer(_seen())
        assert refused.value.code == "rejected_chunk"
        assert refused.value.reasoning == "jump"  # people read it to see what went wrong
        assert client.infer(_seen(0.8)).chunk.actions.shape == (STEPS, 3)
        assert (running.counts.rejected_chunks, running.counts.aborted_trials) == (4, 1)


class _Broken:
    name = "broken"

    def infer(self, observation: Observation) -> Chunk:
        raise KeyError("secret path of the weights")

    def reset(self) -> None:
        pass


def test_a_policy_that_fails_sends_a_code_and_keeps_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with running_server(_Broken(), gate=GATE, metadata=METADATA) as running, RobotClient(running.url) as client:
        for _ in range(2):
            with caplog.at_level(logging.ERROR), pytest.raises(RefusedError, match="policy failed") as refused:
                client.infer(_seen())
            assert refused.value.code == "policy_error"
            assert "secret" not in str(refused.value)
    assert "secret path of the weights" in caplog.text


def test_bad_frames_are_refused_with_a_sentence_and_the_connection_lives_on(server: RunningServer) -> None:
    good = encode(request_to_wire(InferRequest(observation=_seen())))
    with connect(server.url, compression=None) as socket:
        socket.recv()
        for frame in (b"", good[:-7], pickle.dumps({"state": 1}), "text", b"\x93" * 400, encode({"prompt": "x"})):
            socket.send(frame)
            answer = socket.recv(timeout=60)
            assert isinstance(answer, str)
            assert answer.startswith('{"code":"bad_message","message":"')
        socket.send(good)
        answer = decode(bytes(socket.recv(timeout=60, decode=False)))
        assert isinstance(answer, dict)
        assert answer["actions"].shape == (STEPS, 3)
    assert server.counts.refused_messages == 6


def test_an_oversized_message_ends_its_connection_and_no_other() -> None:
    server = running_server(_random(), gate=GATE, metadata=METADATA, max_message_bytes=10_000)
    with server as running, RobotClient(running.url) as other, connect(running.url, compression=None) as socket:
        socket.recv()
        socket.send(bytes(20_000))
        with pytest.raises(ConnectionClosed, match="1009"):
            socket.recv(timeout=60)
        assert other.infer(_seen()).chunk.actions.shape == (STEPS, 3)


def test_a_robot_that_leaves_during_inference_does_not_hurt_the_next() -> None:
    with running_server(_Slow(), gate=GATE, metadata=METADATA) as running:
        with connect(running.url, compression=None) as socket:
            socket.recv()
            socket.send(encode(request_to_wire(InferRequest(observation=_seen()))))
            socket.socket.close()
        with RobotClient(running.url) as client:
            assert client.infer(_seen()).chunk.actions.shape == (STEPS, 3)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "robot.example", ""])
def test_a_host_that_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="can be reached from other machines"):
        PolicyServer(_random(), gate=GATE, metadata=METADATA, host=host)
    PolicyServer(_random(), gate=GATE, metadata=METADATA, host=host, token=TOKEN)


def test_a_short_token_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 16"):
        PolicyServer(_random(), gate=GATE, metadata=METADATA, token="secret")


def test_only_the_right_token_gets_in() -> None:
    with running_server(_random(), gate=GATE, metadata=METADATA, token=TOKEN) as running:
        for wrong in (None, "another-token-of-characters", ""):
            with pytest.raises(WireError, match="Give the server's token"):
                RobotClient(running.url, token=wrong)
        with RobotClient(running.url, token=TOKEN) as client:
            assert client.infer(_seen()).chunk.actions.shape == (STEPS, 3)
        with connect(running.url, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket:
            socket.recv(timeout=60)
        assert running.counts.connections == 2


def test_a_web_page_cannot_connect(server: RunningServer) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(server.url, origin="https://somewhere.example")  # type: ignore[arg-type]  # a plain string is an Origin


def test_a_taken_port_is_one_sentence(server: RunningServer) -> None:
    with pytest.raises(UsageError, match="Choose another --port"):
        serve(_random(), gate=GATE, metadata=METADATA, port=server.port)


def test_a_client_says_what_is_wrong_with_an_address_or_a_silent_server(server: RunningServer) -> None:
    port = server.port
    with pytest.raises(WireError, match="is no address"):
        RobotClient("robot")
    with pytest.raises(WireError, match="no policy server answers"):
        RobotClient("ws://127.0.0.1:1", timeout_s=2)
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60).status == 200


def test_a_client_gives_up_after_its_timeout() -> None:
    policy = _Held()
    with running_server(policy, gate=GATE, metadata=METADATA) as running, RobotClient(running.url) as client:
        client._timeout_s = 0.005
        try:
            with pytest.raises(WireError, match=r"no answer within 0.005 s"):
                client.infer(_seen())
        finally:
            policy.go_on.set()


def test_a_gate_of_another_robot_is_refused() -> None:
    other = METADATA.model_copy(update={"action_dim": 7})
    with pytest.raises(UsageError, match="3 dimensions, the policy answers 7"):
        PolicyServer(_random(), gate=GATE, metadata=other)


SERVE = """
import sys
sys.path.insert(0, "tests/apps")
from test_server import GATE, METADATA, _Slow
from apps.server.server import serve
counts = serve(_Slow(), gate=GATE, metadata=METADATA, port=0, on_ready=lambda port: print(port, flush=True))
print(counts.chunks, flush=True)
"""


def test_sigterm_ends_the_server_cleanly() -> None:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        with RobotClient(f"ws://127.0.0.1:{process.stdout.readline().strip()}") as client:
            client.infer(_seen())
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            with pytest.raises(WireError, match="Hold the robot"):
                client.infer(_seen())
        assert process.stdout.read().strip() == "1"
    finally:
        process.kill()
        process.wait()


def test_the_yardsticks_are_policies() -> None:
    policies: list[Policy] = [_random(), _recorded(), _Slow(), _Jumping(), _Broken()]
    assert [policy.name for policy in policies[:2]] == ["random", "recorded"]


def test_a_robot_that_measures_other_numbers_than_it_commands_is_refused_at_the_start() -> None:
    wide = METADATA.model_copy(update={"state_dim": 5})
    with pytest.raises(UsageError, match="measures 5 numbers and takes actions of 3"):
        PolicyServer(_random(), gate=GATE, metadata=wide)
