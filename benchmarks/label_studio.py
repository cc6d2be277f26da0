"""Label Studio 1.23 from PyPI, in an environment of its own: a server with one account and one project.

`LABEL_STUDIO_PYTHON` names that environment's python: `python3 -m venv X && X/bin/pip install label-studio==1.23`.
"""

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

VARIABLE = "LABEL_STUDIO_PYTHON"
NAME = "Label Studio 1.23"
ABSENT = (
    f"{NAME} is not measured: python3 -m venv X && X/bin/pip install label-studio==1.23, then {VARIABLE}=X/bin/python"
)
EMAIL, PASSWORD = "lead@bench.lab", "correct horse battery"
_START_S = 600  # its first start makes a database: one minute on an idle machine
_QUIET = {"COLLECT_ANALYTICS": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "", "LATEST_VERSION_CHECK": "false"}
_ADDRESS = re.compile(r"Starting development server at (http://[\d.:]+)/")

# As its manual has it for segments of a video, the fields beside the picture: everything is seen without scrolling.
_CONFIG = """<View>
  <Header value="$task" size="5"/>
  <View style="display: flex; gap: 16px">
    <View style="flex: 1 1 70%; min-width: 0">
      <TimelineLabels name="segments" toName="video">LABELS</TimelineLabels>
      <Video name="video" value="$video" frameRate="RATE" height="380" timelineHeight="160"/>
    </View>
    <View style="flex: 1 1 30%">
      <Header value="Board" size="5"/>
      <TextArea name="board" toName="video" rows="1" maxSubmissions="1" editable="true"/>
      <Header value="Solution" size="5"/>
      <TextArea name="solution" toName="video" rows="1" maxSubmissions="1" editable="true"/>
    </View>
  </View>
</View>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What one task holds: of the prediction before a person, of the annotation after."""

    board: str
    solution: str
    segments: tuple[tuple[int, int, str], ...]  # first frame, frame behind the last, label

    def result(self) -> list[dict[str, Any]]:
        """The same as Label Studio has it: frames from 1, the last one included."""
        spans = [
            {
                "type": "timelinelabels",
                "value": {"ranges": [{"start": first + 1, "end": end}], "timelinelabels": [name]},
            }
            for first, end, name in self.segments
        ]
        texts = {"board": self.board, "solution": self.solution}
        fields = [{"from_name": name, "type": "textarea", "value": {"text": [text]}} for name, text in texts.items()]
        parts = [{"from_name": "segments", **span} for span in spans] + fields
        return [{"id": f"part{number}", "to_name": "video", **part} for number, part in enumerate(parts)]

    @classmethod
    def read(cls, result: Sequence[dict[str, Any]]) -> "Labelled":
        """The other way."""
        texts = {part["from_name"]: part["value"]["text"][0] for part in result if part["type"] == "textarea"}
        spans = [part["value"] for part in result if part["type"] == "timelinelabels"]
        rows = [(span["ranges"][0]["start"] - 1, span["ranges"][0]["end"], span["timelinelabels"][0]) for span in spans]
        return cls(board=texts["board"], solution=texts["solution"], segments=tuple(sorted(rows)))


class Studio:
    """A running server, as its lead has it: logged in, with one project."""

    def __init__(self, address: str, labels: Sequence[str], rate_hz: int) -> None:
        self.address = address
        self._client = httpx.Client(base_url=address, timeout=60, follow_redirects=True, headers={"Referer": address})
        self._post("/user/login", data={"email": EMAIL, "password": PASSWORD})
        tags = "".join(f'<Label value="{label}"/>' for label in labels)
        config = _CONFIG.replace("LABELS", tags).replace("RATE", str(rate_hz))
        self._project = int(self._post("/api/projects", json={"title": "bench", "label_config": config}).json()["id"])

    @property
    def stream(self) -> str:
        """Where somebody labels whatever is next."""
        return f"{self.address}/projects/{self._project}/data?labeling=1"

    def add(self, video: Path, task: str, proposed: Labelled) -> None:
        """One task: an episode's video, with what a model said about it as prediction."""
        files = {"file": (video.name, video.read_bytes(), "video/mp4")}
        held = self._post(f"/api/projects/{self._project}/import?commit_to_project=false", files=files).json()
        name = self._get(f"/api/import/file-upload/{held['file_upload_ids'][0]}")["file"]
        prediction = {"model_version": "reader 1", "result": proposed.result()}
        row = {"data": {"video": f"/data/{name}", "task": task}, "predictions": [prediction]}
        self._post(f"/api/projects/{self._project}/import", json=[row])

    def annotated(self) -> list[Labelled]:
        """What people submitted, oldest first."""
        rows = self._get(f"/api/projects/{self._project}/export?exportType=JSON")
        found = sorted((row["id"], made["result"]) for row in rows for made in row["annotations"])
        return [Labelled.read(result) for _, result in found]

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        return self._client.get(path).raise_for_status().json()

    def _post(self, path: str, **body: Any) -> httpx.Response:  # noqa: ANN401 - what httpx takes
        if "csrftoken" not in self._client.cookies:
            self._client.get("/user/login").raise_for_status()
        token = {"X-CSRFToken": self._client.cookies["csrftoken"]}
        return self._client.post(path, headers=token, **body).raise_for_status()


def installed() -> Path | None:
    """What starts it; None where nobody says where it is, or it is not there."""
    python = os.environ.get(VARIABLE)
    found = Path(python).with_name("label-studio") if python else None
    return found if found and found.is_file() else None


@contextmanager
def running(command: Path, folder: Path, labels: Sequence[str], rate_hz: int) -> Iterator[Studio]:
    """A fresh server with its data in `folder`. Raises RuntimeError when it does not start."""
    first = str(random.randrange(20_000, 30_000))  # it takes the next free one itself, and says which
    words = [
        "start",
        "--no-browser",
        "--internal-host",
        "127.0.0.1",
        "--port",
        first,
        "--data-dir",
        str(folder / "data"),
    ]
    account = ["--username", EMAIL, "--password", PASSWORD]
    log = folder / "label-studio.log"
    with log.open("w") as out:
        home = {"LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"), "PYTHONUNBUFFERED": "1"}
        server = subprocess.Popen(
            [str(command), *words, *account], stdout=out, stderr=subprocess.STDOUT, env=os.environ | _QUIET | home
        )
    try:
        studio = Studio(_address(server, log), labels, rate_hz)
        yield studio
        studio.close()
    finally:
        server.terminate()
        server.wait(30)


def _address(server: "subprocess.Popen[bytes]", log: Path) -> str:
    for _ in range(_START_S * 10):
        found = _ADDRESS.search(log.read_text())
        if found and _answers(found[1]):
            return found[1]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"{NAME} did not start: {log.read_text()[-1000:]}")


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/user/login", timeout=60).status_code == 200
    except httpx.TransportError:
        return False
