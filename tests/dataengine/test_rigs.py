"""Rig files: the shipped ones load, and a wrong one is answered with one sentence."""

from pathlib import Path

import pytest

from dataengine.rig_files import RIG_FOLDER, load_rig, shipped_rigs
from schemas.errors import RigError

GOOD = """
name: mylab
source: aloha_hdf5
robot_type: aloha
rate_hz: 50
features:
  action: {key: action}
"""


def wrong(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mylab.yaml"
    path.write_text(text)
    with pytest.raises(RigError) as caught:
        load_rig(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert "pydantic" not in message
    return message


@pytest.mark.parametrize("name", shipped_rigs())
def test_every_shipped_rig_loads_and_is_named_like_its_file(name: str) -> None:
    rig = load_rig(name)
    assert rig.name == name
    colour = [camera for camera in rig.cameras.values() if camera.depth_unit_m is None]
    assert all(camera.channel_order != "unknown" for camera in colour)
    for part in (*rig.end_effectors, *rig.arms):
        names = rig.features[part.feature].names
        assert max(part.indices) < len(names)
        assert all(
            part.side in ("single", *names[index].lower().split("_")) or part.side in names[index].lower()
            for index in part.indices
        ), "a left part must point at left dimensions"


def test_the_rigs_that_the_readme_names_ship() -> None:
    assert {"aloha", "aloha_sim", "pusht", "g1_inspire"} <= set(shipped_rigs())


def test_every_line_of_a_shipped_rig_that_holds_a_choice_is_explained() -> None:
    for path in RIG_FOLDER.glob("*.yaml"):
        assert path.read_text().count("#") >= 8, f"{path.name} explains too little"


def test_a_rig_of_ones_own_loads_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mylab.yaml"
    path.write_text(GOOD)
    assert load_rig(str(path)).rate_hz == 50


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(
        RigError, match=r"no rig 'aloha_simm'. Did you mean 'aloha_sim'\? Known: aloha, aloha_mobile, aloha_sim,"
    ):
        load_rig("aloha_simm")


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(RigError, match=r"there is no rig file .* Write one from the draft of `dataengine inspect"):
        load_rig(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rate_hz: 50", "rate_hz: -1"), "mylab.yaml: rate_hz is wrong (input should be greater than 0, got '-1')"),
        (("rate_hz: 50", "rate_hz: null"), "mylab.yaml: rate_hz is wrong"),
        (("rate_hz: 50", "rate_hz: 1000000000"), "rate_hz is 1000000000; at most 10000 rows a second are read"),
        (("rate_hz: 50", ""), "mylab.yaml: rate_hz is missing. Add it."),
        (("rate_hz: 50", "rate_hz: 50\ncamera: {}"), "camera is no field of a rig. Did you mean 'cameras'?"),
        (("{key: action}", "{key: action, unit: rad, names: 3}"), "features.action.names is wrong"),
        (("rate_hz: 50", "rate_hz: 50\nrate_hz: 30"), "mylab.yaml line 6 is not YAML: 'rate_hz' is written twice"),
        (("name: mylab", "name: [mylab"), "is not YAML"),
        (("name: mylab", "name: mylab\nschema_version: 9"), "has schema_version 9; this program reads 1"),
    ],
)
def test_a_wrong_rig_is_answered_in_one_sentence(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert message in wrong(tmp_path, GOOD.replace(*change))


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        (
            "aloha_hdf5",
            "clock: {max_age_s: 0.5}",
            "'clock' has max_age_s, read from mcap, ros1_bag, ros2_bag, diffusion",
        ),
        ("rlds", "clock: {stamp: log}", "clock has reference or stamp, read from mcap, ros1_bag, ros2_bag only"),
        ("umi_zarr", "clock: {reference: action}", "clock has reference or stamp, read from mcap"),
        ("lerobot_v30", "cameras: {top: {key: top, max_age_s: 1}}", "'top' has max_age_s, read from mcap"),
        ("diffusion_zarr", "clock: {max_age_s: 0.5}\ncameras: {top: {key: top, max_age_s: 1}}", None),
        ("ros2_bag", "clock: {max_age_s: 0.5, stamp: log, reference: action}", None),
        ("aloha_hdf5", "clock: {max_age_s: 0.1, stamp: header}", None),
    ],
)
def test_a_clock_that_the_source_does_not_honour_is_refused(
    tmp_path: Path, source: str, line: str, message: str | None
) -> None:
    text = GOOD.replace("aloha_hdf5", source) + line
    if message is not None:
        assert message in wrong(tmp_path, text)
        return
    (tmp_path / "mylab.yaml").write_text(text)
    assert load_rig(str(tmp_path / "mylab.yaml")).source == source


def test_an_end_effector_that_points_nowhere_is_answered_in_one_sentence(tmp_path: Path) -> None:
    end = "end_effectors: [{name: left gripper, indices: [6], closed: 0.0, open: 1.0}]"
    assert wrong(tmp_path, GOOD + end) == (
        "mylab.yaml: 'left gripper' reads feature 'observation.state', which the rig does not declare."
    )
    same = "end_effectors: [{name: grip, feature: action, indices: [6], closed: 1.0, open: 1.0}]"
    assert "closed and open are equal" in wrong(tmp_path, GOOD + same)


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert "holds no mapping" in wrong(tmp_path, "- a\n- b\n")
