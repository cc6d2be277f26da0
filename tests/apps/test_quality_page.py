"""The pages of `verify` and `inspect`: self-contained, with pictures of what is wrong and what is asked."""

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import raw_files

from apps.report.evidence import curve
from apps.report.inspection_page import write_inspection_page
from apps.report.quality_page import SHOWN, write_verify_page
from dataengine.convert import convert
from dataengine.inspection import inspect_path
from dataengine.inspection_pictures import inspection_pictures
from dataengine.quality import QualityReport, check_quality
from dataengine.verification import CheckRow, VerifyReport
from dataengine.workspace import Workspace
from schemas.episodes import StreamSkew
from schemas.errors import SourceError
from schemas.refs import Ref

REF = Ref("spoiled", "1")
NUM_FRAMES = 150


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six raw episodes, three of them with a fault, and a frame store made from them."""
    root = tmp_path_factory.mktemp("quality")
    random = np.random.default_rng(0)
    for number in range(6):
        path = root / "raw" / f"episode_{number}.hdf5"
        phases = random.uniform(0, 6, 14)
        told = np.sin(np.arange(NUM_FRAMES + 3)[:, None] / 12 + phases) * 0.5
        state = told[:-3] + random.normal(0, 1e-3, (NUM_FRAMES, 14))
        if number == 1:
            state[70, 2] += 0.8
        raw_files.write_aloha_episode(
            path,
            num_frames=NUM_FRAMES,
            compressed=False,
            seed=number,
            qpos=state.astype(np.float32),
            action=told[3:].astype(np.float32),
        )
    with h5py.File(root / "raw" / "episode_2.hdf5", "r+") as file:
        file["observations/images/cam_low"][50:120] = 2
    with h5py.File(root / "raw" / "episode_4.hdf5", "r+") as file:
        file["observations/images/cam_high"][20:] = file["observations/images/cam_high"][20]
    (root / "raw" / "metadata.csv").write_text("file\n" + "".join(f"episode_{n}.hdf5\n" for n in range(6)))
    workspace = Workspace.at(root / "workspace")
    convert(source_path=root / "raw", to=REF, workspace=workspace, rig="aloha_sim", sink="both", workers=1)
    return root


@pytest.fixture(scope="module")
def quality(spoiled: Path) -> QualityReport:
    return check_quality(ref=REF, workspace=Workspace.at(spoiled / "workspace"), workers=1)


def _images(page: str) -> list[str]:
    return re.findall(r'<img alt="([^"]*)" src="data:image/', page)


def test_the_faults_of_a_converted_dataset_are_found(quality: QualityReport) -> None:
    found = {(row.episode_id.split("-")[0], row.check, row.stream) for row in quality.failed}
    assert found == {
        ("episode_1", "jump", "observation.state"),
        ("episode_2", "black_camera", "cam_low"),
        ("episode_4", "frozen_camera", "cam_high"),
    }


def test_the_page_shows_every_fault_with_its_moment(spoiled: Path, quality: QualityReport) -> None:
    workspace = Workspace.at(spoiled / "workspace")
    path = write_verify_page(spoiled / "verify.html", workspace=workspace, comparison=None, quality=quality)
    page = path.read_text()
    for row in quality.failed:
        assert row.episode_id in page
        assert any(words.startswith(f"{row.stream} of {row.episode_id}") for words in _images(page)) or row.dim == 2
    assert '<svg class="curve"' in page
    assert '<rect class="mark"' in page
    outside = re.findall(r'(?:src|href)="(?!data:)[^"]*"', page)
    assert outside == [], "the page needs nothing beside itself"
    assert "<script" not in page


def test_a_comparison_and_the_skew_of_streams_are_on_the_page(spoiled: Path) -> None:
    bad = CheckRow(check="frames == rows", stream="cam", num_episodes=1, ok=False, detail="9 <for> 10 rows")
    good = CheckRow(check="columns are bit-equal", stream="action", num_episodes=1, ok=True, detail="all equal")
    skew = StreamSkew(num_messages=900, num_dropped=7, num_repeated=2, p50_s=0.004, p95_s=0.01, max_s=0.033)
    report = VerifyReport(ref=REF, rows=(good, bad), num_episodes=1, skew={"/camera": skew})
    workspace = Workspace.at(spoiled / "workspace")
    page = write_verify_page(spoiled / "v.html", workspace=workspace, comparison=report, quality=None).read_text()
    assert "1 comparisons fail" in page
    assert "9 &lt;for&gt; 10 rows" in page
    assert "/camera" in page
    assert ">33<" in page


def test_more_failures_than_pictures_are_listed(spoiled: Path, quality: QualityReport) -> None:
    row = quality.failed[0]
    many = replace(quality, rows=tuple([row] * (SHOWN + 3)))
    workspace = Workspace.at(spoiled / "workspace")
    page = write_verify_page(spoiled / "m.html", workspace=workspace, comparison=None, quality=many).read_text()
    assert page.count('<div class="card">') == SHOWN
    assert "3 more" in page


def test_a_long_curve_keeps_its_spike_and_its_gap() -> None:
    values = np.zeros(50_000)
    values[31_234] = 1.0
    values[40_000] = np.nan
    drawn = str(curve({"joint": values}, rate_hz=50))
    points = [float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", drawn)]
    assert min(points) == 6.0
    assert drawn.count("M") == 2
    assert len(drawn) < 40_000


def test_the_inspection_page_shows_both_colour_orders_where_nobody_knows(spoiled: Path) -> None:
    inspection = inspect_path(spoiled / "raw")
    shown = inspection_pictures(spoiled / "raw", inspection)
    assert [(row.camera, row.channel_order) for row in shown] == [
        ("cam_high", "rgb"),
        ("cam_high", "bgr"),
        ("cam_low", "rgb"),
        ("cam_low", "bgr"),
    ]
    found = replace(inspection, pictures=shown)
    page = write_inspection_page(spoiled / "inspect.html", found, name="raw").read_text()
    assert len(_images(page)) == 4
    assert page.count("Which one shows the right colours?") == 2
    assert "observations/qpos" in page
    assert "rate_hz: null  # ?" in page
    assert "pictures" not in found.to_json()


def test_pictures_are_the_first_frames_with_red_and_blue_as_said(tmp_path: Path) -> None:
    import io

    from PIL import Image

    raw_files.write_aloha_episode(tmp_path / "raw" / "episode_0.hdf5", num_frames=3, compressed=False)
    shown = inspection_pictures(tmp_path / "raw", inspect_path(tmp_path / "raw"))
    first = raw_files.pictures(1)[0]
    decoded = [np.asarray(Image.open(io.BytesIO(row.png))) for row in shown[:2]]
    assert np.array_equal(decoded[0], first)
    assert np.array_equal(decoded[1], first[:, :, ::-1])


def test_a_self_describing_dataset_is_shown_in_its_own_colours(tmp_path: Path) -> None:
    raw = raw_files.write_lerobot_v21(tmp_path / "raw", missing_videos=(0,))
    [shown] = inspection_pictures(raw, inspect_path(raw))
    assert shown.channel_order is None
    assert shown.png.startswith(b"\x89PNG")


def test_a_dataset_that_cannot_be_read_says_why_there_is_no_picture(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw_files.write_aloha_episode(raw / "episode_0.hdf5", num_frames=5, short_camera="cam_low")
    inspection = inspect_path(raw)
    with pytest.raises(SourceError, match="no picture can be shown") as error:
        inspection_pictures(raw, inspection)
    path = write_inspection_page(tmp_path / "i.html", inspection, name="raw", without_pictures=str(error.value))
    assert "no picture can be shown" in path.read_text()
