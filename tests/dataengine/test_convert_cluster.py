"""A conversion on a Ray cluster of two nodes, one of which is killed midway."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import raw_files

from dataengine.convert import convert
from dataengine.workspace import Workspace
from schemas.refs import Ref

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: the tests' process may be connected to another Ray already.
PROGRAM = """
import json, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from dataengine.convert import convert
from dataengine.workspace import Workspace
from schemas.refs import Ref

raw, root = Path(sys.argv[1]), Path(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
other = cluster.add_node(wait=False, num_cpus=1, object_store_memory=80 << 20)
cluster.wait_for_nodes(timeout=120)
killed = []

def staged():
    return len(list(root.glob("frames/.*.draft/.staging/*/*.staged")))

def kill():
    while staged() < 3:
        time.sleep(0.02)
    killed.append(staged())
    cluster.remove_node(other, allow_graceful=False)

thread = threading.Thread(target=kill, daemon=True)
thread.start()
try:
    report = convert(
        source_path=raw, to=Ref("tiny", "1"), workspace=Workspace.at(root), rig="aloha_sim", ray_address=cluster.address
    )
    thread.join(60)
    import ray
    deadline = time.monotonic() + 120  # the cluster hears of the death of a node by and by
    while (alive := sum(node["Alive"] for node in ray.nodes())) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    print(json.dumps({
        "fingerprints": [record.fingerprint for record in report.records],
        "rejected": len(report.rejected),
        "killed_at": killed,
        "alive": alive,
    }))
finally:
    import ray
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_node_killed_midway_changes_nothing(tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=24, num_frames=60, height=240, width=320)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(raw), str(tmp_path / "cluster")],
        cwd=ROOT,
        env=os.environ | {"RAY_health_check_failure_threshold": "3", "RAY_raylet_start_wait_time_s": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["alive"] == 1
    assert 3 <= told["killed_at"][0] < 24  # midway indeed
    assert told["rejected"] == 0
    unbroken = convert(
        source_path=raw, to=Ref("tiny", "1"), workspace=Workspace.at(tmp_path / "one"), rig="aloha_sim", workers=2
    )
    assert told["fingerprints"] == [record.fingerprint for record in unbroken.records]
