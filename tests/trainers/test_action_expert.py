"""The action expert: what its halves listen to, what its loss counts, and that it can learn a chunk."""

import pytest
import torch
from torch import Tensor

from trainers.models.action_expert import ActionExpert, ActionShape
from trainers.recipes import ActionExpertSize

SHAPE = ActionShape(steps=6, action_width=3, state_width=2)
WHOLE = torch.ones(1, 6, 3, dtype=torch.bool)
WIDTH = 16


def expert(depth: int = 4) -> ActionExpert:
    size = ActionExpertSize(width=32, depth=depth, heads=2, noise_draws=2)
    made = ActionExpert(size, SHAPE, WIDTH)
    made.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():  # gates start at zero; open them so that conditions matter
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return made


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(seed: int = 5, size: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = noise(seed)
    actions = torch.rand(size, SHAPE.steps, SHAPE.action_width, generator=g) * 2 - 1
    valid = torch.ones(actions.shape, dtype=torch.bool)
    return actions, valid, torch.randn(size, 32, generator=g), torch.randn(size, 32, generator=g)


def test_reasoning_reaches_only_the_latter_half_of_the_blocks() -> None:
    made = expert(depth=4)
    outputs: list[list[Tensor]] = []
    for reasoned in (torch.zeros(1, 32), torch.ones(1, 32)):
        seen: list[Tensor] = []
        hooks = [b.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out)) for b in made.blocks]
        final = made(torch.ones(1, 6, 3), torch.tensor([7]), torch.ones(1, 32), reasoned, WHOLE)
        outputs.append([*seen, final])
        for hook in hooks:
            hook.remove()
    same = [torch.equal(a, b) for a, b in zip(*outputs, strict=True)]
    assert same == [True, True, False, False, False]


def test_what_is_seen_conditions_the_first_half() -> None:
    made = expert(depth=2)
    firsts: list[Tensor] = []
    hook = made.blocks[0].register_forward_hook(lambda _m, _i, out: firsts.append(out))
    for seen in (torch.zeros(1, 32), torch.ones(1, 32)):
        made(torch.ones(1, 6, 3), torch.tensor([7]), seen, torch.ones(1, 32), WHOLE)
    hook.remove()
    assert not torch.equal(*firsts)


def test_the_loss_ignores_what_is_padded() -> None:
    made = expert(depth=1)
    actions, valid, seen, reasoned = batch()
    valid[:, 4:] = False
    valid[:, :, 2] = False
    loss = made.loss(actions, valid, seen, reasoned, noise(9))
    other = torch.where(valid, actions, torch.full_like(actions, 5.0))
    assert torch.equal(made.loss(other, valid, seen, reasoned, noise(9)), loss)

    # The mean by hand: the same draws of noise and time, the error over valid elements alone.
    generator, twice = noise(9), actions.repeat(2, 1, 1)
    drawn = torch.randn(twice.shape, generator=generator)
    time = torch.randint(0, 100, (6,), generator=generator)
    noisy = made.noise_schedule.add_noise(twice, drawn, time)
    guess = made(noisy, time, seen.repeat(2, 1), reasoned.repeat(2, 1), valid.repeat(2, 1, 1))
    torch.testing.assert_close(loss, (guess - drawn)[valid.repeat(2, 1, 1)].square().mean())


def test_a_smaller_robots_padding_is_zero_at_every_noise_level_in_training_and_in_sampling() -> None:
    made = expert(depth=2)
    actions, valid, seen, reasoned = batch(size=2)
    valid[:, 4:] = False
    valid[:, :, 2] = False
    fed: list[Tensor] = []
    hook = made.action_in.register_forward_pre_hook(lambda _m, inputs: fed.append(inputs[0]))
    made.loss(actions, valid, seen, reasoned, noise(1))
    chunk = made.sample(seen, reasoned, valid, noise(2))
    hook.remove()
    assert len(fed) == 1 + made.size.sample_steps
    for x in (*fed, chunk):
        real = valid.repeat(len(x) // 2, 1, 1)
        assert not x[~real].any()
        assert x[real].all()


def test_real_steps_look_at_no_padded_one() -> None:
    made = expert(depth=2)
    actions, valid, seen, reasoned = batch(size=2)
    valid[:, 4:] = False
    time = torch.tensor([3, 60])
    short = made(actions[:, :4], time, seen, reasoned, valid[:, :4])
    torch.testing.assert_close(made(actions, time, seen, reasoned, valid)[:, :4], short)


def test_a_batch_without_robots_has_no_action_loss_and_touches_every_weight() -> None:
    made = expert(depth=2)
    h = torch.randn(2, 5, WIDTH, generator=noise(1))
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    seen, reasoned = made.condition(h, ~nothing, nothing, torch.zeros(2, 2))
    actions = torch.zeros(2, 6, 3)
    loss = made.loss(actions, actions.bool(), seen, reasoned, noise(2))
    torch.autograd.backward(loss)
    assert loss.item() == 0
    gradients = [parameter.grad for parameter in made.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_pooling_looks_only_at_its_own_tokens() -> None:
    made = expert()
    h = torch.randn(1, 6, WIDTH, generator=noise(1))
    prompt = torch.tensor([[True, True, True, False, False, False]])
    answer = torch.tensor([[False, False, False, True, True, False]])
    state = torch.zeros(1, 2)
    seen, reasoned = made.condition(h, prompt, answer, state)
    changed = h.clone()
    changed[0, 3:5] += 1
    seen_too, reasoned_too = made.condition(changed, prompt, answer, state)
    assert torch.equal(seen, seen_too)
    assert not torch.equal(reasoned, reasoned_too)
    changed[0, 5] += 1
    assert torch.equal(made.condition(changed, prompt, answer, state)[1], reasoned_too)


def test_a_chunk_is_a_function_of_its_noise() -> None:
    made = expert()
    _, _, seen, reasoned = batch(size=1)
    first, again, other = (made.sample(seen, reasoned, WHOLE, noise(seed)) for seed in (1, 1, 2))
    assert first.shape == (1, 6, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_it_learns_two_chunks_told_apart_by_reasoning_alone() -> None:
    made = ActionExpert(ActionExpertSize(width=32, depth=2, heads=2, noise_draws=8), SHAPE, WIDTH)
    made.initialise(noise(0))
    h = torch.zeros(2, 2, WIDTH)
    h[0, 1], h[1, 1] = 1, torch.linspace(-1, 1, WIDTH)
    prompt, answer = torch.tensor([[True, False]] * 2), torch.tensor([[False, True]] * 2)
    target = torch.stack([torch.full((6, 3), 0.7), torch.full((6, 3), -0.7)])
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for step in range(400):
        seen, reasoned = made.condition(h, prompt, answer, torch.zeros(2, 2))
        loss = made.loss(target, torch.ones_like(target, dtype=torch.bool), seen, reasoned, noise(step))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():  # one chunk's error varies by half with its noise; their mean does not
        conditions = made.condition(h, prompt, answer, torch.zeros(2, 2))
        chunks = torch.stack([made.sample(*conditions, WHOLE.expand(2, -1, -1), noise(seed)) for seed in range(16)])
    assert float((chunks - target).abs().mean()) < 0.15


@pytest.mark.parametrize("time", [0, 50, 99])
def test_the_noise_schedule_keeps_signal_and_noise_in_balance(time: int) -> None:
    made = expert()
    kept = made.noise_schedule.alphas_cumprod[time]
    assert made.noise_schedule.betas.dtype == torch.float32
    # squaredcos_cap_v2 (Nichol and Dhariwal 2021, eq. 17) at the step's end, betas capped at 0.999
    import math

    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    want = 1.0
    for step in range(time + 1):
        want *= 1 - min(1 - alpha_bar((step + 1) / 100) / alpha_bar(step / 100), 0.999)
    assert float(kept) == pytest.approx(want, rel=1e-3)
