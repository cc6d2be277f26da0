"""A trained checkpoint as a policy: it acts in the robot's own units, repeats itself, and says what is missing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import ACTIONS, STATES, STEPS, TASK, robot_sample, train_tiny

from schemas.chat import Message, Text, render_chat
from schemas.control import Observation
from schemas.errors import TrainError, WireError
from trainers.checkpoint import load_trained
from trainers.data import Collator
from trainers.policy import VlaPolicy, load_policy
from trainers.speaking import speak


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("policy")
    train_tiny(home)
    return home / "final"


@pytest.fixture
def policy(checkpoint: Path) -> VlaPolicy:
    return load_policy(checkpoint, max_reasoning_tokens=6)


def observation(seed: int = 0, **changes: object) -> Observation:
    rng = np.random.default_rng(seed)
    fields: dict[str, object] = {
        "images": {name: rng.integers(0, 255, (80, 120, 3), dtype=np.uint8) for name in ("wrist", "top", "spare")},
        "state": rng.normal(size=STATES).astype(np.float32),
        "prompt": TASK,
    }
    return Observation(**{**fields, **changes})  # type: ignore[arg-type]  # tests replace fields by name


def test_a_chunk_comes_in_the_robots_own_units(policy: VlaPolicy) -> None:
    chunk = policy.infer(observation())
    assert chunk.actions.shape == (policy.chunk_steps, ACTIONS) == (STEPS, ACTIONS)
    assert chunk.actions.dtype == np.float32
    low, high = policy.robot.normalizer.action_low, policy.robot.normalizer.action_high
    # clip_sample keeps the clean chunk inside [-1, 1], so actions stay inside what was recorded
    assert (chunk.actions >= low - 1e-3).all()
    assert (chunk.actions <= high + 1e-3).all()
    assert isinstance(chunk.reasoning, str)


def test_the_same_trial_gives_the_same_chunks_again(policy: VlaPolicy, checkpoint: Path) -> None:
    first = [policy.infer(observation()).actions for _ in range(2)]
    assert not np.array_equal(first[0], first[1]), "each chunk of a trial starts from its own noise"
    policy.reset()
    other = load_policy(checkpoint, max_reasoning_tokens=6)
    for again in (policy, other):
        np.testing.assert_array_equal(np.stack([again.infer(observation()).actions for _ in range(2)]), np.stack(first))
    seeded = load_policy(checkpoint, max_reasoning_tokens=6, seed=1)
    assert not np.array_equal(seeded.infer(observation()).actions, first[0])


def test_a_missing_camera_is_named(policy: VlaPolicy) -> None:
    images = {"top": observation().images["top"]}
    with pytest.raises(WireError, match=r"camera wrist is missing\. This policy needs top, wrist, got top"):
        policy.infer(observation(images=images))


def test_a_state_of_another_robot_is_refused(policy: VlaPolicy) -> None:
    with pytest.raises(WireError, match="robot 'arm' has 2 state numbers, got 5"):
        policy.infer(observation(state=np.zeros(5, np.float32)))


def test_the_order_of_cameras_is_that_of_training(policy: VlaPolicy) -> None:
    seen = observation()
    turned = dict(reversed(list(seen.images.items())))
    swapped = {**seen.images, "top": seen.images["wrist"], "wrist": seen.images["top"]}
    chunks = []
    for images in (seen.images, turned, swapped):
        policy.reset()
        chunks.append(policy.infer(observation(images=images)).actions)
    np.testing.assert_array_equal(chunks[0], chunks[1])
    assert not np.array_equal(chunks[0], chunks[2])


def test_word_by_word_thinking_is_what_one_pass_over_the_answer_thinks(policy: VlaPolicy, checkpoint: Path) -> None:
    seen = observation()
    trained = load_trained(checkpoint)
    images = [seen.images[name] for name in policy.cameras]
    spoken = speak(trained, policy.robot.ask(TASK), images, max_tokens=6)
    words, hidden, num_prompt = spoken.words, spoken.hidden_BTD, spoken.num_prompt
    assert policy.infer(seen).reasoning == words
    assert hidden.shape[1] > num_prompt, "even an untrained model says something"
    counts = [trained.config.image_tokens(120, 80)] * 2
    chat = render_chat(policy.robot.ask(TASK), trained.tokenizer, counts, open_turn=True)
    assert num_prompt == len(chat.ids)
    # The greedy answer, read back as if it were the annotation: hidden states and argmax must agree.
    vla = trained.vla
    collate = Collator(config=trained.config, tokenizer=trained.tokenizer, shape=trained.shape)
    patches, grids = collate.patches(images)
    answer: list[int] = []
    with torch.inference_mode():
        for place in range(hidden.shape[1] - num_prompt):
            ids = torch.tensor([[*chat.ids, *answer]])
            h = vla.vlm.model.language_model(
                inputs_embeds=vla.embed(ids, patches, grids), position_ids=vla.positions(ids, grids), use_cache=False
            ).last_hidden_state
            torch.testing.assert_close(h, hidden[:, : num_prompt + place], rtol=1e-3, atol=1e-4)
            answer.append(int(vla.vlm.lm_head(h[:, -1]).argmax()))
    assert trained.tokenizer.words(answer) == words


def test_the_prompt_of_training_is_asked_with_other_words(policy: VlaPolicy) -> None:
    (asked,) = policy.robot.ask("Fold the towel.")
    assert isinstance(asked, Message)
    assert asked.parts[-1] == Text("Fold the towel.")
    assert policy.cameras == ("top", "wrist")


def test_an_unknown_robot_is_refused_with_the_known_ones(checkpoint: Path) -> None:
    with pytest.raises(TrainError, match=r"knows no robot 'arms'\. Did you mean 'arm'"):
        load_policy(checkpoint, embodiment="arms")


def test_a_robot_trained_without_reasoning_acts_without_a_word(checkpoint: Path) -> None:
    trained = load_trained(checkpoint)
    (robot,) = trained.embodiments
    mute = VlaPolicy(trained, replace(robot, reasons=False), name="mute", max_reasoning_tokens=6, seed=0)
    spoken = speak(trained, robot.ask(TASK), [observation().images[name] for name in robot.cameras], max_tokens=0)
    sample = replace(robot_sample(0), messages=robot.ask(TASK))
    batch = Collator(config=trained.config, tokenizer=trained.tokenizer, shape=trained.shape)([sample])
    assert spoken.num_prompt == spoken.hidden_BTD.shape[1] == int(batch.prompt_BT.sum())
    assert mute.infer(observation()).reasoning == ""
