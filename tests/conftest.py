"""Fixtures shared by all tests: real sample data, and an environment that never reaches for a network."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent

# Hypothesis gives each example 200 ms and calls slow drawing a fault: on a busy machine both say nothing.
settings.register_profile("any-machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def samples() -> Path:
    """Real teleoperation data that is not part of the project; CONTRIBUTING.md says how to name its folder."""
    folder = Path(os.environ.get("DATAENGINE_SAMPLES", ROOT.parent / "shared" / "samples"))
    if not folder.is_dir():
        pytest.skip(f"sample data is absent: no folder {folder.name} (set DATAENGINE_SAMPLES)")
    return folder


@pytest.fixture(scope="module", autouse=True)
def scheduling() -> Iterator[None]:
    """Some modules encode by other libraries: what that does to this process ends with the module."""
    from dataengine.sinks.scheduling import ordinary_scheduling

    with ordinary_scheduling():
        yield


@pytest.fixture
def workspace(tmp_path: Path) -> "object":
    """An empty workspace."""
    from dataengine.workspace import Workspace

    return Workspace.at(tmp_path / "workspace")


_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium_flags() -> list[str]:
    """What keeps a headless Chromium from reaching for a GPU or a network."""
    return _CHROMIUM_FLAGS


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; without one the tests skip, or fail where CI_REQUIRE_BROWSER=1."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    reason = "no Chromium on this machine"
    if os.environ.get("CI_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
