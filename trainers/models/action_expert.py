"""The action expert: a diffusion transformer that turns noise into a chunk of actions, told what to do by the VLM.

Each block's scale, shift and gate come from a condition vector (adaLN, after ScaleDP). The first half of the blocks is
conditioned on what the robot sees and is told, the latter half and the last layer on what it has reasoned: ChatVLA-2's
reasoning-following module (section 3.2).

Axes: B batch, T tokens, D VLM width, W expert width, H steps of the chunk, A action numbers, S state numbers,
N noise draws per sample.
"""

import math
from dataclasses import dataclass

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional

from trainers.recipes import ActionExpertSize

_TIME_FEATURES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionShape:
    """The largest chunk and state over all embodiments; smaller ones are padded and masked."""

    steps: int
    action_width: int
    state_width: int


class TokenPool(nn.Module):
    """The VLM's hidden states of some tokens as one vector: mean, then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, h_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, D). A sample without tokens pools to zeros, so its vector is the same learned constant."""
        weight_BT1 = mask_BT.unsqueeze(-1).to(h_BTD.dtype)
        mean_BD = (h_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)
        pooled: Tensor = self.outer(functional.gelu(self.inner(mean_BD)))
        return pooled


class DitBlock(nn.Module):
    """Attention over the chunk's steps, then an MLP, each scaled, shifted and gated by the condition."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp_in = nn.Linear(width, mlp_ratio * width)
        self.mlp_out = nn.Linear(mlp_ratio * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x_BHW: Tensor, c_BW: Tensor, looks_BH: Tensor) -> Tensor:
        """(B, H, W) -> (B, H, W). `looks_BH`: which steps the others may look at."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
            self.modulation(functional.silu(c_BW)).unsqueeze(1).chunk(6, dim=-1)
        )
        x_BHW = x_BHW + gate_a * self._attend(self.norm_attention(x_BHW) * (1 + scale_a) + shift_a, looks_BH)
        hidden = functional.gelu(self.mlp_in(self.norm_mlp(x_BHW) * (1 + scale_m) + shift_m), approximate="tanh")
        y_BHW: Tensor = x_BHW + gate_m * self.mlp_out(hidden)
        return y_BHW

    def _attend(self, x_BHW: Tensor, looks_BH: Tensor) -> Tensor:
        batch, steps, width = x_BHW.shape
        q, k, v = self.qkv(x_BHW).view(batch, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=looks_BH[:, None, None])
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, steps, width))
        return out


class ActionExpert(nn.Module):
    """Predicts the noise in a noisy chunk; `sample` starts from pure noise and removes it in a few DDIM steps.

    What is padded is the same in training and sampling: its numbers are zero at every noise level, and no step looks at
    a padded one. Padded are numbers and steps that an embodiment lacks, and in training steps past an episode's end.
    """

    def __init__(self, size: ActionExpertSize, shape: ActionShape, vlm_width: int) -> None:
        super().__init__()
        self.size, self.shape = size, shape
        width = size.width
        self.input_pool, self.reasoning_pool = TokenPool(vlm_width), TokenPool(vlm_width)
        self.input_norm, self.reasoning_norm = nn.LayerNorm(vlm_width), nn.LayerNorm(vlm_width)
        self.input_embed = nn.Linear(vlm_width + shape.state_width, width)
        self.reasoning_embed = nn.Linear(vlm_width + shape.state_width, width)
        self.time_in, self.time_out = nn.Linear(_TIME_FEATURES, width), nn.Linear(width, width)
        self.action_in = nn.Linear(shape.action_width, width)
        self.positions = nn.Parameter(torch.zeros(1, shape.steps, width))
        self.blocks = nn.ModuleList(DitBlock(width, size.heads, size.mlp_ratio) for _ in range(size.depth))
        self.final_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.final_modulation = nn.Linear(width, 2 * width)
        self.action_out = nn.Linear(width, shape.action_width)
        with torch.device("cpu"):  # a table, not weights: it must hold numbers even where only shapes are built
            self.noise_schedule = DDIMScheduler(
                num_train_timesteps=size.train_noise_steps,
                beta_schedule="squaredcos_cap_v2",  # kept in float32: bfloat16 betas turn the last step into NaN
                prediction_type="epsilon",
                clip_sample=True,
            )

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from the generator; gates and output start at zero (adaLN-zero), blocks do nothing yet."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    bound = math.sqrt(6 / (module.in_features + module.out_features))
                    module.weight.copy_((torch.rand(module.weight.shape, generator=generator) * 2 - 1) * bound)
                    nn.init.zeros_(module.bias)
            # Sinusoids, then learned: neighbouring steps start alike. Started at random, a chunk after 400 steps still
            # jumped 0.49 rad between steps (median); started so, 0.07.
            self.positions.copy_(_sinusoids(self.positions.shape[1], self.size.width))
            for block in self.blocks:
                assert isinstance(block, DitBlock)
                nn.init.zeros_(block.modulation.weight)
            nn.init.zeros_(self.final_modulation.weight)
            nn.init.zeros_(self.action_out.weight)

    def condition(
        self, h_BTD: Tensor, prompt_BT: Tensor, reasoning_BT: Tensor, state_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What conditions the first half and the latter half, (B, W) each, before the time is added.

        `prompt_BT` and `reasoning_BT` mask the tokens of the prompt and of the answer.
        """
        seen_BD = self.input_norm(self.input_pool(h_BTD, prompt_BT))
        reasoned_BD = self.reasoning_norm(self.reasoning_pool(h_BTD, reasoning_BT))
        return (
            self.input_embed(torch.cat([seen_BD, state_BS], dim=-1)),
            self.reasoning_embed(torch.cat([reasoned_BD, state_BS], dim=-1)),
        )

    def forward(self, x_BHA: Tensor, time_B: Tensor, seen_BW: Tensor, reasoned_BW: Tensor, real_BHA: Tensor) -> Tensor:
        """The noise in the noisy chunk `x_BHA` at noise level `time_B`; nothing is read where `real_BHA` is False."""
        real_BH = real_BHA.any(-1)
        looks_BH = real_BH | ~real_BH.any(-1, keepdim=True)  # a chunk of nothing looks at itself, not at no number
        time_BW = self.time_out(functional.silu(self.time_in(_time_features(time_B).to(seen_BW.dtype))))
        c_BW, c_reason_BW = time_BW + seen_BW, time_BW + reasoned_BW
        x_BHW = self.action_in(x_BHA * real_BHA) + self.positions[:, : x_BHA.shape[1]]
        for index, block in enumerate(self.blocks):
            x_BHW = block(x_BHW, c_BW if index < self.size.depth / 2 else c_reason_BW, looks_BH)
        shift, scale = self.final_modulation(functional.silu(c_reason_BW)).unsqueeze(1).chunk(2, dim=-1)
        noise_BHA: Tensor = self.action_out(self.final_norm(x_BHW) * (1 + scale) + shift)
        return noise_BHA

    def loss(
        self,
        actions_BHA: Tensor,
        valid_BHA: Tensor,
        seen_BW: Tensor,
        reasoned_BW: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean squared error of the guessed noise over valid elements; zero, with zero gradients, when none is."""
        draws = self.size.noise_draws
        x_NHA, valid_NHA = actions_BHA.repeat(draws, 1, 1), valid_BHA.repeat(draws, 1, 1)
        # Drawn on the CPU so that one seed gives one noise on every device.
        noise_NHA = torch.randn(x_NHA.shape, generator=generator).to(x_NHA)
        time_N = torch.randint(0, self.size.train_noise_steps, (len(x_NHA),), generator=generator).to(x_NHA.device)
        noisy_NHA = self.noise_schedule.add_noise(x_NHA.float(), noise_NHA.float(), time_N).to(x_NHA.dtype)
        guess_NHA = self(noisy_NHA, time_N, seen_BW.repeat(draws, 1), reasoned_BW.repeat(draws, 1), valid_NHA)
        error_NHA = (guess_NHA.float() - noise_NHA.float()).square() * valid_NHA
        mean: Tensor = error_NHA.sum() / valid_NHA.sum().clamp(min=1)
        return mean

    @torch.no_grad()
    def sample(self, seen_BW: Tensor, reasoned_BW: Tensor, real_BHA: Tensor, generator: torch.Generator) -> Tensor:
        """A chunk (B, H, A) in model units, by `sample_steps` DDIM steps from noise; zero where `real_BHA` is False."""
        shape = (len(seen_BW), self.shape.steps, self.shape.action_width)
        x_BHA = torch.randn(shape, generator=generator).to(seen_BW.device, torch.float32)
        self.noise_schedule.set_timesteps(self.size.sample_steps, device=seen_BW.device)
        for time in self.noise_schedule.timesteps:
            guess = self(x_BHA.to(seen_BW.dtype), time.expand(len(x_BHA)), seen_BW, reasoned_BW, real_BHA)
            x_BHA = self.noise_schedule.step(guess.float(), time, x_BHA).prev_sample
        return x_BHA * real_BHA


def _sinusoids(steps: int, width: int) -> Tensor:
    """Sines and cosines of the step at geometrically spaced frequencies, (1, steps, width) float32."""
    frequency = torch.exp(-math.log(1_000) / (width // 2) * torch.arange(width // 2, dtype=torch.float32))
    angle = torch.arange(steps, dtype=torch.float32).unsqueeze(1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1).unsqueeze(0)


def _time_features(time_B: Tensor) -> Tensor:
    """Sines and cosines of the noise level at geometrically spaced frequencies, (B, 256) float32."""
    half = _TIME_FEATURES // 2
    frequency = torch.exp(-math.log(10_000) / half * torch.arange(half, device=time_B.device, dtype=torch.float32))
    angle = time_B.float().unsqueeze(1) * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
