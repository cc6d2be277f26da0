"""PyPI's own `openpi-client`, in an environment of its own (it needs numpy < 2), gets chunks from our server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.robot.yardsticks import RandomPolicy
from apps.server.gate import ActionGate
from apps.server.server import running_server
from schemas.wire import ServerMetadata

pytestmark = pytest.mark.timeout(900)  # two installations, at worst
ROOT = Path(__file__).resolve().parents[2]
CLIENT = ("openpi-client==0.1.2", "typing_extensions")  # the client imports the second and does not declare it
STATE_DIM, STEPS = 14, 50

SCRIPT = """
import json, sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, token = int(sys.argv[1]), sys.argv[2]
policy = WebsocketClientPolicy("127.0.0.1", port, api_key=token)
state = np.full(14, 0.25, dtype=np.float32)
image = np.zeros((48, 64, 3), dtype=np.uint8)
nested = policy.infer({"images": {"cam_high": image}, "state": state, "prompt": "pick the card"})
flat = policy.infer({"observation/cam_high": image, "observation/state": state.astype(np.float64), "prompt": "pick"})
try:
    policy.infer({"images": {}, "state": state, "prompt": "pick"})
    refused = ""
except RuntimeError as error:
    refused = str(error)
again = policy.infer({"images": {"cam_high": image}, "state": state, "prompt": "pick the card"})
print(json.dumps({
    "numpy": np.__version__,
    "metadata": policy.get_server_metadata(),
    "shapes": [list(reply["actions"].shape) for reply in (nested, flat, again)],
    "dtype": str(nested["actions"].dtype),
    "first": float(np.abs(nested["actions"][0] - state).max()),
    "infer_ms": nested["server_timing"]["infer_ms"],
    "reasoning": nested["reasoning"],
    "refused": refused,
}))
"""


@pytest.fixture(scope="session")
def openpi_python() -> Path:
    """The interpreter of a virtual environment with openpi-client, made once and kept under `.cache`."""
    folder = ROOT / ".cache" / "openpi-client-venv"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists() and ready.read_text() == " ".join(CLIENT):
        return python
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *CLIENT]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], install):
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            if os.environ.get("CI_REQUIRE_OPENPI") == "1":
                pytest.fail(f"{CLIENT[0]} cannot be installed: {last}")
            pytest.skip(f"{CLIENT[0]} cannot be installed here: {last}")
    ready.write_text(" ".join(CLIENT))
    return python


def test_openpi_client_gets_chunks_and_errors_from_our_server(openpi_python: Path) -> None:
    low, high = np.full(STATE_DIM, -1, dtype=np.float32), np.full(STATE_DIM, 1, dtype=np.float32)
    gate = ActionGate(lower=low, upper=high, max_start_jump=high, max_step=high, chunk_steps=STEPS)
    policy = RandomPolicy(lower=low, upper=high, max_step=high / 50, chunk_steps=STEPS, seed=3)
    metadata = ServerMetadata(
        policy="random", cameras=("cam_high",), state_dim=STATE_DIM, action_dim=STATE_DIM, chunk_steps=STEPS, rate_hz=50
    )
    token = "a-token-of-enough-characters"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with running_server(policy, gate=gate, metadata=metadata, token=token) as server:
        done = subprocess.run(
            [str(openpi_python), "-c", SCRIPT, str(server.port), token],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert server.counts.chunks == 3
    got = json.loads(done.stdout)
    assert got["numpy"].startswith("1.")
    assert got["metadata"] == metadata.model_dump(mode="json")
    assert got["shapes"] == [[STEPS, STATE_DIM]] * 3
    assert got["dtype"] == "float32"
    assert got["first"] <= 1 / 50
    assert got["infer_ms"] > 0
    assert got["reasoning"] == ""
    assert "camera 'cam_high' is missing" in got["refused"]
