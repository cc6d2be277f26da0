"""Draws to batches: what is padded, what is passed over, and in which order samples come."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import ACTIONS, STATES, STEPS, robot_sample, text_sample, tiny, tiny_mix
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from schemas.chat import IGNORE, Text
from schemas.errors import TrainError
from schemas.normalization import Normalizer
from trainers.data import Collator, Embodiment, InMemoryMix, batches, plan_step, survey
from trainers.models.action_expert import ActionShape
from trainers.pixels import image_tokens, patchify
from trainers.run import check_mix
from trainers.tokenizer import nano_tokenizer

WIDE = ActionShape(steps=STEPS + 2, action_width=ACTIONS + 3, state_width=STATES + 1)


def collator(shape: ActionShape = WIDE) -> Collator:
    return Collator(config=tiny(), tokenizer=nano_tokenizer(), shape=shape)


def test_patches_are_those_of_qwens_own_processor() -> None:
    images = [np.random.default_rng(i).integers(0, 255, (252, 308, 3), dtype=np.uint8) for i in range(2)]
    ours, grids = patchify(images, patch_size=14, merge_size=2, frames_per_patch=2)
    theirs = Qwen2VLImageProcessorPil(min_pixels=1, max_pixels=10**8)(images=images, return_tensors="np")
    np.testing.assert_allclose(ours, theirs["pixel_values"], atol=1e-6)
    np.testing.assert_array_equal(grids, theirs["image_grid_thw"])


def test_an_odd_sized_image_is_fitted_to_the_tokens_that_were_counted() -> None:
    image = np.zeros((239, 317, 3), np.uint8)
    _, grids = patchify([image], patch_size=14, merge_size=2, frames_per_patch=2)
    assert int(grids.prod()) // 4 == image_tokens(317, 239, patch_size=14, merge_size=2)


def test_a_smaller_robot_is_padded_and_masked_to_the_largest() -> None:
    sample = robot_sample(2)  # its last two steps lie past the end of the episode
    assert sample.actions is not None
    batch = collator()([sample, text_sample(0)])
    valid = batch.valid_BHA.numpy()
    assert batch.actions_BHA.shape == (2, STEPS + 2, ACTIONS + 3)
    assert valid[0].sum() == (STEPS - 2) * ACTIONS
    np.testing.assert_array_equal(batch.actions_BHA[0, : STEPS - 2, :ACTIONS].numpy(), sample.actions[: STEPS - 2])
    assert not batch.actions_BHA.numpy()[~valid].any()
    assert not valid[1].any()
    assert batch.robot_B.tolist() == [True, False]
    np.testing.assert_array_equal(batch.state_BS[0].numpy(), [*(sample.state if sample.state is not None else ()), 0])


def test_padding_tokens_carry_no_label() -> None:
    batch = collator()([robot_sample(0), text_sample(1, images=0)])
    assert not batch.real_BT.all()
    assert (batch.labels_BT[~batch.real_BT] == IGNORE).all()
    assert (batch.labels_BT != IGNORE).any(dim=1).all()
    assert len(batch.grids) == 2, "two cameras, no image in the question"


def test_a_stage_without_image_text_takes_robot_draws_in_order_and_counts_the_others() -> None:
    mix = tiny_mix()
    plan = plan_step(mix, 2, 4, image_text=False)
    assert plan.positions == (2, 4, 5, 6)
    assert (plan.taken, plan.passed_over, plan.next_position) == ({"arms": 4}, {"questions": 1}, 7)
    whole = plan_step(mix, 2, 4, image_text=True)
    assert (whole.positions, whole.passed_over) == ((2, 3, 4, 5), {})


def test_batches_from_the_middle_are_the_tail_of_batches_from_the_start() -> None:
    mix, collate = tiny_mix(), collator()
    whole = list(batches(mix, collate, start=0, steps=5, batch_size=4, image_text=True))
    tail = list(batches(mix, collate, start=8, steps=3, batch_size=4, image_text=True))
    assert [plan for plan, _ in whole[2:]] == [plan for plan, _ in tail]
    for (_, a), (_, b) in zip(whole[2:], tail, strict=True):
        assert a.ids_BT.equal(b.ids_BT)
        assert a.actions_BHA.equal(b.actions_BHA)


def test_an_error_while_reading_reaches_the_one_who_trains() -> None:
    mix = tiny_mix()
    too_long = (*mix.samples[:6], robot_sample(6, steps=STEPS + 9), *mix.samples[7:])
    bad = InMemoryMix(lock=mix.lock, samples=too_long, fingerprint=mix.fingerprint)
    with pytest.raises(Exception, match="does not fit"):
        list(batches(bad, collator(), start=0, steps=3, batch_size=4, image_text=True))


def test_a_mix_without_robots_can_not_train_actions_only() -> None:
    mix = tiny_mix()
    spec = mix.lock.spec.model_copy(update={"sources": mix.lock.spec.sources[1:]})
    words = InMemoryMix(
        lock=mix.lock.model_copy(update={"spec": spec}), samples=(text_sample(0),), fingerprint=mix.fingerprint
    )
    with pytest.raises(TrainError, match="stage 'reasoning-following' learns actions only"):
        check_mix(tiny(), words)


def test_the_survey_finds_the_largest_shapes_over_robots() -> None:
    mix = tiny_mix()
    sources = (*mix.lock.spec.sources, mix.lock.spec.sources[0].model_copy(update={"name": "hands"}))
    rng = np.random.default_rng(0)
    hand = Normalizer.fit("hand", rng.normal(size=(9, 7)), rng.normal(size=(9, 5)))
    lock = mix.lock.model_copy(
        update={
            "spec": mix.lock.spec.model_copy(update={"sources": sources}),
            "normalizers": {**mix.lock.normalizers, "hand": hand.to_json()},
        }
    )
    base = robot_sample(1)
    sample = replace(
        base,
        draw=replace(base.draw, source="hands"),
        embodiment="hand",
        state=np.zeros(7, np.float32),
        actions=np.zeros((STEPS + 4, 5), np.float32),
        action_is_pad=np.zeros(STEPS + 4, np.bool_),
    )
    both = InMemoryMix(lock=lock, samples=(*mix.samples, sample), fingerprint=mix.fingerprint)
    shape, robots = survey(both)
    assert shape == ActionShape(steps=STEPS + 4, action_width=5, state_width=7)
    assert [robot.name for robot in robots] == ["arm", "hand"]


def test_what_serving_needs_survives_json() -> None:
    _, (robot,) = survey(tiny_mix())
    again = Embodiment.from_json(robot.to_json())
    assert (again.name, again.cameras, again.image_sizes, again.prompt) == (
        robot.name,
        robot.cameras,
        robot.image_sizes,
        robot.prompt,
    )
    np.testing.assert_array_equal(again.normalizer.action_low, robot.normalizer.action_low)
    asked = again.ask("Fold the towel.")
    assert [part.text for turn in asked for part in turn.parts if isinstance(part, Text)] == ["Fold the towel."]
