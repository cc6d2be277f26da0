"""Fixtures shared by all tests: real sample data, and an environment that never reaches for a network."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def samples() -> Path:
    """Real teleoperation data that is not part of the project; see docs/contributing for where it comes from."""
    folder = Path(os.environ.get("DATAENGINE_SAMPLES", ROOT.parent / "shared" / "samples"))
    if not folder.is_dir():
        pytest.skip(f"sample data is absent: no folder {folder.name} (set DATAENGINE_SAMPLES)")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> "object":
    """An empty workspace."""
    from dataengine.workspace import Workspace

    return Workspace.at(tmp_path / "workspace")
