"""Reading a mix: exact pixels, numbers and padding; the same order for any rank, worker, restart and pickle."""

import multiprocessing
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from mix_material import EPISODES, NUM_FRAMES, build, converted_workspace, spec_yaml, write_llava

from dataengine.episode_set import EpisodeSet
from dataengine.mix import Mix, MixReader, mix_tree, tree
from dataengine.mix.pixels import scaled
from dataengine.workspace import Workspace
from schemas.chat import Image, Text
from schemas.errors import MixError


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return converted_workspace(tmp_path_factory.getbasetemp() / "toy-mix")


@pytest.fixture(scope="session")
def mix(toy: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Mix:
    folder = tmp_path_factory.mktemp("reading")
    write_llava(folder)
    return build(toy, folder, spec_yaml(), "reading")


def test_a_robot_sample_holds_the_frame_the_words_and_the_chunk_of_the_raw_file(mix: Mix, toy: Workspace) -> None:
    episodes = EpisodeSet.open(toy, EPISODES)
    normalizer = mix.normalizer("aloha_sim")
    seen_padding = 0
    for position in range(60):
        sample = mix.sample(position)
        if not sample.is_robot:
            continue
        episode_id, frame_text = sample.item_key.split("#")
        frame = int(frame_text)
        raw = toy.root.parent / "raw" / episodes.row(episode_id).metadata["raw_name"]
        with h5py.File(raw) as file:  # by plain h5py, past all our readers
            action, qpos = file["action"][:], file["observations/qpos"][:]
        assert sample.actions is not None
        assert sample.state is not None
        assert sample.action_is_pad is not None
        real = min(8, NUM_FRAMES - frame)
        assert sample.action_is_pad.tolist() == [False] * real + [True] * (8 - real)
        np.testing.assert_allclose(
            normalizer.raw_action(sample.actions[:real]), action[frame : frame + real], atol=1e-5
        )
        np.testing.assert_array_equal(sample.actions[real:], np.repeat(sample.actions[real - 1 : real], 8 - real, 0))
        np.testing.assert_allclose(sample.state * normalizer.state_std + normalizer.state_mean, qpos[frame], atol=1e-5)
        for image, camera in zip(sample.images, ("cam_high", "cam_low"), strict=True):
            np.testing.assert_array_equal(image, scaled(episodes.frame(episode_id, camera, frame), (56, 42)))
        seen_padding += 8 - real
    assert seen_padding > 0


def test_a_robot_sample_shows_its_cameras_in_order_then_asks_and_only_the_answer_is_learned(mix: Mix) -> None:
    sample = next(sample for sample in MixReader(mix) if sample.is_robot)
    asked, said = sample.messages
    assert asked.parts == (Image("cam_high"), Image("cam_low"), Text("Put the card on the ledge."))
    assert (asked.role, asked.supervised, said.role, said.supervised) == ("user", False, "assistant", True)
    assert sample.embodiment == "aloha_sim"


def _keys(mix: Mix, positions: range) -> list[str]:
    return [mix.sample(position).item_key for position in positions]


def test_a_mix_that_was_pickled_forked_or_spawned_gives_the_same_samples(mix: Mix) -> None:
    expected = _keys(mix, range(12))  # readers are open in this process now
    copy = pickle.loads(pickle.dumps(mix))
    assert _keys(copy, range(12)) == expected
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_keys, (mix, range(12))) == expected


def test_a_data_loader_with_workers_keeps_the_order(mix: Mix) -> None:
    from torch.utils.data import DataLoader

    reader = MixReader(mix, start=30, stop=54)
    loader = DataLoader(reader, batch_size=4, shuffle=False, num_workers=2, collate_fn=list)
    found = [sample.item_key for batch in loader for sample in batch]
    assert found == _keys(mix, range(30, 54))


def test_all_ranks_together_take_every_position_once_and_each_sees_every_source(mix: Mix) -> None:
    for world_size in (1, 2, 3, 4):
        readers = [MixReader(mix, rank=rank, world_size=world_size) for rank in range(world_size)]
        taken = [[reader.position_of(index) for index in range(60)] for reader in readers]
        assert sorted(position for positions in taken for position in positions) == list(range(60 * world_size))
        for positions in taken:  # 1 : 3 on four ranks must not make one rank an image-text rank
            shares = [mix.draw(position).source for position in positions].count("questions") / 60
            assert 0.1 < shares < 0.45


def test_a_run_goes_on_exactly_where_it_stopped_with_another_world_size(mix: Mix) -> None:
    four = [MixReader(mix, rank=rank, world_size=4) for rank in range(4)]
    before = [reader.next().draw for _ in range(5) for reader in four]
    states = [reader.state() for reader in four]
    assert all(state == {"mix": mix.fingerprint, "position": 20} for state in states)
    three = [MixReader.resume(mix, states[0], rank=rank, world_size=3) for rank in range(3)]
    after = [reader.next().draw for _ in range(5) for reader in three]
    assert sorted(draw.position for draw in before + after) == list(range(35))
    assert {draw.position: draw for draw in before + after} == {p: mix.draw(p) for p in range(35)}


def test_a_rank_resumed_in_the_same_world_takes_what_it_would_have_taken(mix: Mix) -> None:
    whole = MixReader(mix, rank=1, world_size=3)
    expected = [whole.next().item_key for _ in range(10)]
    part = MixReader(mix, rank=1, world_size=3)
    found = [part.next().item_key for _ in range(4)]
    rest = MixReader.resume(mix, part.state(), rank=1, world_size=3)
    assert found + [sample.item_key for sample in rest.batch(6)] == expected


def test_a_state_of_another_mix_is_refused(mix: Mix) -> None:
    with pytest.raises(MixError, match="belongs to a mix with fingerprint 0000"):
        MixReader.resume(mix, {"mix": "0000", "position": 3})


def test_readers_that_can_not_be_are_refused(mix: Mix) -> None:
    with pytest.raises(MixError, match="rank 2 does not exist among 2"):
        MixReader(mix, rank=2, world_size=2)
    with pytest.raises(MixError, match=r"10 samples do not divide among 4 ranks. Stop at 8"):
        MixReader(mix, stop=10, world_size=4)
    with pytest.raises(TypeError, match="never ends"):
        len(MixReader(mix))


def test_validation_samples_come_from_held_out_episodes_and_are_always_the_same(mix: Mix) -> None:
    found = [sample.item_key for sample in mix.validation_samples(20)]
    assert found == [sample.item_key for sample in mix.validation_samples(20)]
    assert len(set(found)) == len(found)
    robots = {key.split("#")[0] for key in found if not key.startswith("questions")}
    assert robots
    assert robots <= set(mix.lock.sources[0].validation_episodes)
    trained = {mix.sample(position).item_key for position in range(mix.num_samples)}
    assert not trained & set(found)
    assert any(key.startswith("questions") for key in found)
    assert not list(mix.validation_samples(0))


def test_the_next_pass_goes_on_with_items_that_the_first_did_not_reach(mix: Mix) -> None:
    count = mix.lock.sources[0].num_items
    draws = [mix.draw(position) for position in range(2 * mix.num_samples)]
    items = [draw.item for draw in draws if draw.source == "arms"]
    for start in range(0, len(items) - count, count):
        assert len(set(items[start : start + count])) == count


def test_the_tree_counts_what_is_really_drawn(mix: Mix) -> None:
    found = mix_tree(mix, first=40)
    draws = [mix.draw(position).source for position in range(40)]
    assert [source.observed_draws for source in found.sources] == [draws.count("arms"), draws.count("questions")]
    whole = mix_tree(mix)
    for source, lock in zip(whole.sources, mix.lock.sources, strict=True):
        assert (source.observed_draws, source.observed_tokens) == (lock.num_draws, lock.supervised_tokens)
        assert source.stated_share == pytest.approx({"arms": 0.75, "questions": 0.25}[source.name])
    text = tree(mix)
    assert "arms (robot): weight 3" in text
    assert "75.00% (150)" in text
    assert "supervised tokens" in text
    assert mix.tree() == text
    assert mix.tree_rows()["sources"][1]["num_draws"] == 50
    with pytest.raises(MixError, match="can not observe 0 draws"):
        mix_tree(mix, first=0)


def test_ratios_given_as_epochs_are_reported_as_epochs(toy: Workspace, tmp_path: Path) -> None:
    write_llava(tmp_path)
    text = spec_yaml(robot="epochs: 2", pictures="epochs: 0.5", num_samples=None)
    mix = build(toy, tmp_path, text, "epochs")
    arms, questions = mix_tree(mix).sources
    assert (arms.stated_as, arms.stated, arms.repeats) == ("epochs", 2, 2)
    assert arms.stated_share + questions.stated_share == pytest.approx(1)
    assert arms.distinct_items == arms.num_items
