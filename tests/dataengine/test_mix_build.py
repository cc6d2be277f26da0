"""Building a mix: what is locked, what is left out, and what is refused in one sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mix_material import (
    EPISODES,
    NUM_EPISODES,
    NUM_FRAMES,
    RELEASE,
    ByteTokenizer,
    build,
    converted_workspace,
    image_tokens,
    spec_yaml,
    trace_row,
    write_llava,
    write_release,
)

from dataengine.episode_set import EpisodeSet
from dataengine.mix.build import build_mix
from dataengine.mix.mix import Mix
from dataengine.mix.order import DrawOrder, interleave
from dataengine.mix.spec import load_spec
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, MixError
from schemas.records import RejectedRow
from schemas.refs import Ref


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return converted_workspace(tmp_path_factory.getbasetemp() / "toy-mix")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_llava(tmp_path)
    return tmp_path


def test_weights_become_locked_draws_and_the_lock_says_what_is_in_them(toy: Workspace, data: Path) -> None:
    mix = build(toy, data, spec_yaml(), "weights")
    arms, questions = mix.lock.sources
    assert (arms.num_draws, questions.num_draws, mix.num_samples) == (150, 50, 200)
    assert arms.num_items == len(arms.train_episodes) * NUM_FRAMES
    assert arms.episode_frames == (NUM_FRAMES,) * len(arms.train_episodes)
    assert len(arms.validation_episodes) >= 1
    assert not set(arms.train_episodes) & set(arms.validation_episodes)
    assert questions.num_items < 12  # some pictures are held out
    assert arms.repeats == pytest.approx(150 / arms.num_items)


def test_supervised_tokens_are_those_of_the_draws_really_taken(toy: Workspace, data: Path) -> None:
    mix = build(toy, data, spec_yaml(), "tokens")
    counted = {"arms": 0, "questions": 0}
    for position in range(mix.num_samples):
        sample = mix.sample(position)
        said = [part.text for m in sample.messages if m.supervised for part in m.parts if hasattr(part, "text")]
        counted[sample.draw.source] += sum(len(text.encode()) + 1 for text in said)  # and the end-of-turn token
    assert {lock.name: lock.supervised_tokens for lock in mix.lock.sources} == counted
    assert sum(lock.supervised_share for lock in mix.lock.sources) == pytest.approx(1)


def test_an_episode_without_a_released_row_is_left_out_and_said_so(toy: Workspace, data: Path) -> None:
    mix = build(toy, data, spec_yaml(), "left-out")
    last = EpisodeSet.open(toy, EPISODES).ids()[-1]
    assert [(row.episode, row.reason) for row in mix.record.rejected] == [
        (last, "source 'arms': no released trace in toy@1")
    ]
    assert mix.record.counts["frames_without_reasoning"] == NUM_FRAMES


def test_without_reasoning_every_episode_counts_and_the_robot_says_nothing(toy: Workspace, data: Path) -> None:
    mix = build(toy, data, spec_yaml(reasoning="none", pictures=None), "silent")
    (arms,) = mix.lock.sources
    assert len(arms.train_episodes) + len(arms.validation_episodes) == NUM_EPISODES
    assert arms.supervised_tokens == 0
    assert [message.role for message in mix.sample(0).messages] == ["user"]


@pytest.mark.parametrize("reasoning", ["none", "trace"])
def test_an_episode_that_a_reviewer_called_unusable_is_left_out_with_the_reason(
    toy: Workspace, data: Path, reasoning: str
) -> None:
    first, *rest = EpisodeSet.open(toy, EPISODES).ids()
    judged, why = Ref(f"judged-{reasoning}", "1"), "episode unusable, says alice: the camera was off"
    rows = [trace_row(episode_id, "I pick 5.") for episode_id in rest]
    write_release(toy, judged, rows, rejected=(RejectedRow(episode=first, reason=why),))
    text = spec_yaml(pictures=None, reasoning=reasoning).replace("annotations: toy@1", f"annotations: {judged}")
    mix = build(toy, data, text, f"judged-{reasoning}")
    (arms,) = mix.lock.sources
    assert sorted((*arms.train_episodes, *arms.validation_episodes)) == sorted(rest)
    assert [(row.episode, row.reason) for row in mix.record.rejected] == [(first, f"source 'arms': {why}")]
    assert str(judged) in {row.ref for row in mix.record.inputs}


def test_segments_give_each_frame_the_words_of_its_own_time(toy: Workspace, data: Path) -> None:
    ids = EpisodeSet.open(toy, EPISODES).ids()
    rows = [
        trace_row(episode_id, text, field="segment", start_ns=start, end_ns=end)
        for episode_id in ids
        for text, start, end in (("reach", 0, 100_000_000), ("grasp", 100_000_000, 300_000_000))
    ]
    write_release(toy, Ref("segments", "1"), rows)
    text = spec_yaml(pictures=None, reasoning="segment", robot="epochs: 1", num_samples=None)
    mix = build(toy, data, text.replace("annotations: toy@1", "annotations: segments@1"), "segments")
    seen = {}
    for position in range(mix.num_samples):
        sample = mix.sample(position)
        frame = int(sample.item_key.split("#")[1])
        seen[frame] = sample.messages[-1].parts[0]
    assert {frame: getattr(part, "text", "") for frame, part in seen.items()} == {
        frame: "reach" if frame < 5 else "grasp" for frame in range(15)
    }  # 50 Hz: frames 0..4 lie before 0.1 s, 5..14 before 0.3 s, and no row covers the rest


def test_the_normaliser_knows_the_training_episodes_only(toy: Workspace, data: Path) -> None:
    mix = build(toy, data, spec_yaml(), "normaliser")
    episodes = EpisodeSet.open(toy, EPISODES)
    train = [episodes.columns(episode_id) for episode_id in mix.lock.sources[0].train_episodes]
    state = np.concatenate([columns["observation.state"] for columns in train]).astype(np.float64)
    action = np.concatenate([columns["action"] for columns in train])
    normalizer = mix.normalizer("aloha_sim")
    np.testing.assert_allclose(normalizer.state_mean, state.mean(axis=0), atol=1e-6)
    scaled = normalizer.action(action)
    assert scaled.min() >= -1.0001
    assert scaled.max() <= 1.0001
    with pytest.raises(MixError, match=r"no embodiment 'aloha'. Did you mean 'aloha_sim'"):
        mix.normalizer("aloha")


def test_building_again_is_already_there_and_another_recipe_is_refused(toy: Workspace, data: Path) -> None:
    first = build(toy, data, spec_yaml(), "again")
    assert build(toy, data, spec_yaml(), "again").record == first.record
    with pytest.raises(ArtifactError, match="made differently"):
        build(toy, data, spec_yaml(num_samples=100), "again")
    with pytest.raises(ArtifactError, match="tokenizer: was"):
        build(toy, data, spec_yaml(), "again", tokenizer="other words")


def test_moving_raw_data_and_workspace_changes_nothing(toy: Workspace, data: Path, tmp_path: Path) -> None:
    first = build(toy, data, spec_yaml(), "moved")
    elsewhere = Workspace.at(shutil.copytree(toy.root, tmp_path / "elsewhere"))
    shutil.rmtree(elsewhere.root / "mixes")
    (tmp_path / "far" / "away").mkdir(parents=True)
    write_llava(tmp_path / "far" / "away")
    second = build(elsewhere, tmp_path / "far" / "away", spec_yaml(), "moved")
    assert second.fingerprint == first.fingerprint
    shutil.rmtree(tmp_path / "far")
    (data / "llava.json").unlink()
    assert np.array_equal(second.sample(1).images[0], first.sample(1).images[0])  # the mix holds its own pictures


def test_the_interleave_in_the_mix_is_the_one_its_draws_ask_for(toy: Workspace, data: Path) -> None:
    mix = build(toy, data, spec_yaml(), "interleave")
    locks = mix.lock.sources
    order = DrawOrder(
        interleave([lock.num_draws for lock in locks]),
        names=[lock.name for lock in locks],
        num_items=[lock.num_items for lock in locks],
        num_draws=[lock.num_draws for lock in locks],
        seed=mix.lock.spec.seed,
    )
    assert order.block(0, 500).item.tolist() == mix.draws(0, 500).item.tolist()


def test_what_one_source_holds_out_no_other_source_trains_on(toy: Workspace, data: Path) -> None:
    second = (
        "  - {kind: robot, name: silent, episodes: toy@1, reasoning: none, cameras: [cam_low], weight: 1, "
        "where: {operator: bob}}\n"
    )
    text = spec_yaml(pictures=None).replace("num_samples", second + "num_samples")
    mix = build(toy, data, text, "two-views")
    train = {name for lock in mix.lock.sources for name in lock.train_episodes}
    held = {name for lock in mix.lock.sources for name in lock.validation_episodes}
    assert held
    assert not train & held


def test_a_filter_lets_only_its_episodes_through(toy: Workspace, data: Path) -> None:
    text = spec_yaml(pictures=None).replace("chunk_steps", "where: {operator: ada}, chunk_steps")
    mix = build(toy, data, text, "filtered")
    episodes = EpisodeSet.open(toy, EPISODES)
    chosen = [*mix.lock.sources[0].train_episodes, *mix.lock.sources[0].validation_episodes]
    assert {episodes.row(name).metadata["operator"] for name in chosen} == {"ada"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("episodes: toy@1", "episodes: toyy@1", "source 'arms': no episodes 'toyy@1'.*Did you mean 'toy@1'"),
        ("episodes: toy@1", "episodes: toy", "source 'arms': 'toy' has no version"),
        ("annotations: toy@1", "annotations: toi@1", "no annotations 'toi@1'.*Did you mean 'toy@1'"),
        ("annotations: toy@1, ", "", "reasoning 'trace' needs annotations"),
        ("cam_low]", "cam_lou]", "has no camera 'cam_lou'. Did you mean 'cam_low'"),
        ("chunk_steps", "where: {operator: eve}, chunk_steps", "has operator 'eve'. Values: 'ada', 'bob'"),
        ("chunk_steps", "where: {operatr: ada}, chunk_steps", "no metadata 'operatr'. Did you mean 'operator'"),
        ("chunk_steps", "chunk_stepz", r"sources.0.chunk_stepz: unknown key. Did you mean 'chunk_steps'"),
        ("image_size", "imagesize", r"mix.yaml: imagesize: unknown key. Did you mean 'image_size'"),
        ("kind: robot", "kind: robt", "kind 'robt' does not exist. Did you mean 'robot'"),
        ("kind: robot, ", "", "sources.0: has no kind"),
        ("weight: 3", "weight: -3", "sources.0.weight: .*greater than 0, got -3"),
        ("weight: 3", "epochs: 3", "weight or epochs, not both"),
        ("num_samples: 200", "", "weights need num_samples"),
        (
            "num_samples: 200",
            "num_samples: 20000",
            "'arms' would be drawn 15000 times from .* cap max_repeats 50",
        ),
        ("name: questions", "name: arms", "two sources share a name"),
        ("path: llava.json", "path: lava.json", "no file 'lava.json'. Did you mean 'llava.json'"),
        ("seed: 5", "seed: [5", "is no YAML"),
        ("seed: 5", "seed: 5\nschema_version: 9", "schema_version is 9; this program reads 1"),
        ("validation: 0.2", "validation: 1.0", "validation: .*less than 1"),
    ],
)
def test_a_wrong_mix_file_is_refused_in_one_sentence(
    toy: Workspace, data: Path, before: str, after: str, message: str
) -> None:
    text = spec_yaml()
    assert before in text
    with pytest.raises(MixError, match=message):
        build(toy, data, text.replace(before, after), "wrong")
    assert not toy.path("mixes", Ref("wrong", "1")).exists()


def test_a_release_that_covers_nothing_is_refused_with_its_policy(toy: Workspace, data: Path) -> None:
    write_release(toy, Ref("empty", "1"), [trace_row("someone-else", "words")], policy="human")
    with pytest.raises(MixError, match=r"policy human, 1 rows\) releases no trace for any of 6 episodes"):
        build(toy, data, spec_yaml().replace("annotations: toy@1", "annotations: empty@1"), "nothing")


def test_a_mix_file_that_is_absent_is_named() -> None:
    with pytest.raises(MixError, match=r"nowhere.yaml: can not be read \(No such file"):
        load_spec(Path("nowhere.yaml"))


@pytest.fixture
def copied(toy: Workspace, data: Path, tmp_path: Path) -> Workspace:
    workspace = Workspace.at(shutil.copytree(toy.root, tmp_path / "copied", ignore=shutil.ignore_patterns("mixes")))
    build(workspace, data, spec_yaml(), "pinned")
    return workspace


def test_a_mix_whose_annotations_were_replaced_does_not_open(copied: Workspace) -> None:
    shutil.rmtree(copied.path("annotations", RELEASE))
    ids = EpisodeSet.open(copied, EPISODES).ids()
    write_release(copied, RELEASE, [trace_row(name, "other words") for name in ids])
    with pytest.raises(MixError, match=r"locked to annotations 'toy@1' with fingerprint .* but the workspace holds"):
        Mix.open(copied, Ref("pinned", "1"))


def test_a_mix_whose_episodes_are_gone_does_not_open(copied: Workspace) -> None:
    shutil.rmtree(copied.path("episodes", EPISODES))
    with pytest.raises(MixError, match="locked to episodes 'toy@1': no episodes 'toy@1'"):
        Mix.open(copied, Ref("pinned", "1"))


def test_a_mix_whose_frame_store_is_gone_does_not_fall_back_to_other_pixels(copied: Workspace) -> None:
    shutil.rmtree(copied.path("frames", EPISODES))
    with pytest.raises(MixError, match="locked to frames 'toy@1': no frames 'toy@1'"):
        Mix.open(copied, Ref("pinned", "1"))


def test_a_mix_built_without_a_frame_store_does_not_read_a_new_one(copied: Workspace, data: Path) -> None:
    kept = copied.root.parent / "kept"
    shutil.move(copied.path("frames", EPISODES), kept)
    mix = build(copied, data, spec_yaml(), "from-video")
    assert mix.sample(0).images[0].shape == (42, 56, 3)
    shutil.move(kept, copied.path("frames", EPISODES))
    with pytest.raises(MixError, match=r"had no frame store; now it has one"):
        Mix.open(copied, Ref("from-video", "1"))


def test_a_lock_that_was_edited_does_not_open(copied: Workspace) -> None:
    file = copied.path("mixes", Ref("pinned", "1")) / "lock.json"
    lock = json.loads(file.read_text())
    lock["spec"]["seed"] = 6
    file.write_text(json.dumps(lock))
    with pytest.raises(ArtifactError, match="was changed after it was built"):
        Mix.open(copied, Ref("pinned", "1"))


def test_a_build_that_fails_leaves_nothing_behind(toy: Workspace, data: Path) -> None:
    before = sorted(path.name for path in (toy.root / "mixes").glob("*")) if (toy.root / "mixes").exists() else []
    with pytest.raises(MixError):
        build(toy, data, spec_yaml(num_samples=20000), "failing")
    after = sorted(path.name for path in (toy.root / "mixes").glob("*")) if (toy.root / "mixes").exists() else []
    assert after == before


def test_a_spec_can_be_given_without_a_file(toy: Workspace, data: Path) -> None:
    (data / "mix.yaml").write_text(spec_yaml())
    spec = load_spec(data / "mix.yaml")
    ref = Ref("given", "1")
    tokens = ByteTokenizer()
    record = build_mix(spec=spec, base=data, to=ref, workspace=toy, tokenizer=tokens, image_tokens=image_tokens)
    assert record.counts["samples"] == 200
