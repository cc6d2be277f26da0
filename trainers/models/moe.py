"""Routed experts in place of a dense MLP: a router sends each token to a few of several copies of the MLP.

The copies start from the dense weights (sparse upcycling), so that the first step computes what the dense model did.
All copies but the first get a little noise: identical experts would give the router no gradient at all.

Axes: T tokens, D model width, E experts, K chosen experts, F expert width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from transformers.integrations.moe import use_experts_implementation

from trainers.recipes import MoeSize


@dataclass(slots=True)
class Dispatch:
    """Which of transformers' kernels multiplies tokens with their experts; the attribute name is transformers' own."""

    _experts_implementation: str


@use_experts_implementation
class RoutedExperts(nn.Module):
    """E gated MLPs as two 3-D weights, so that one grouped product serves all of them."""

    def __init__(self, config: Dispatch, num_experts: int, width: int, expert_width: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * expert_width, width))
        self.down_proj = nn.Parameter(torch.empty(num_experts, width, expert_width))
        self.act_fn = nn.SiLU()

    def forward(self, x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor) -> Tensor:
        """The `eager` kernel: one expert after the other; the reference that tests hold the others against."""
        y_TD = torch.zeros_like(x_TD)
        for expert in range(self.num_experts):
            token, place = torch.where(expert_TK == expert)
            gate, up = functional.linear(x_TD[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
            part = functional.linear(self.act_fn(gate) * up, self.down_proj[expert])
            y_TD = y_TD.index_add(0, token, (part * weight_TK[token, place, None]).to(y_TD.dtype))
        return y_TD


class Router(nn.Module):
    """Scores each token against each expert in float32; the weights of the chosen ones sum to one."""

    def __init__(self, width: int, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(num_experts, width))

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns chosen experts (T, K), their weights (T, K) and the probabilities of all (T, E)."""
        with torch.autocast(x_TD.device.type, enabled=False):  # bfloat16 scores tie, and a tie routes by accident
            score_TE = functional.linear(x_TD.float(), self.weight.float()).softmax(dim=-1)
        weight_TK, expert_TK = score_TE.topk(self.top_k, dim=-1)
        return expert_TK, weight_TK / weight_TK.sum(-1, keepdim=True), score_TE


class MoeMlp(nn.Module):
    """Takes the place of one `Qwen2MLP`: same input, same output, eight times the weights."""

    load_E: Tensor

    def __init__(self, size: MoeSize, width: int, expert_width: int) -> None:
        super().__init__()
        self.gate = Router(width, size.num_experts, size.top_k)
        self.experts = RoutedExperts(Dispatch(size.dispatch), size.num_experts, width, expert_width)
        self.register_buffer("load_E", torch.zeros(size.num_experts), persistent=False)
        self.balance: Tensor | None = None  # of the last training pass; 1 when experts share the work evenly
        self.real_BT: Tensor | None = None  # which tokens count in training; set before the pass, None = all

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        x_TD = hidden_states.reshape(-1, hidden_states.shape[-1])
        expert_TK, weight_TK, score_TE = self.gate(x_TD)
        if self.training:
            self._count(expert_TK, score_TE)
        y_TD = self._work(x_TD, expert_TK, weight_TK)
        y: Tensor = y_TD.reshape(hidden_states.shape)
        return y

    def _work(self, x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor) -> Tensor:
        """The experts' answer. Grouped products know nothing of autocast, so its cast of the weights is made here."""
        kind = x_TD.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_TD.dtype
        weights = {name: weight.to(dtype) for name, weight in self.experts.named_parameters()}
        y_TD: Tensor = functional_call(self.experts, weights, (x_TD.to(dtype), expert_TK, weight_TK.to(dtype)))
        return y_TD

    def _count(self, expert_TK: Tensor, score_TE: Tensor) -> None:
        """Keep how the work was shared: the count for the log, the switch-style product for the balance loss.

        Padding does not count: it is as many tokens as the longest neighbour happens to need.
        """
        num_experts = score_TE.shape[1]
        real_T1 = torch.ones_like(score_TE[:, :1]) if self.real_BT is None else self.real_BT.reshape(-1, 1).float()
        share_E = (functional.one_hot(expert_TK, num_experts).sum(dim=1) * real_T1).sum(dim=0)
        score_E = (score_TE * real_T1).sum(dim=0) / real_T1.sum()
        with torch.no_grad():
            self.load_E += share_E
        self.balance = num_experts * (share_E / share_E.sum() * score_E).sum()


def upcycle(mlp: nn.Module, size: MoeSize, generator: torch.Generator) -> MoeMlp:
    """Routed experts that compute, up to `size.noise`, what `mlp` (a `Qwen2MLP`) computes."""
    gate, up, down = (getattr(mlp, name).weight.detach() for name in ("gate_proj", "up_proj", "down_proj"))
    with torch.device(gate.device):
        moe = MoeMlp(size, gate.shape[1], gate.shape[0]).to(gate.dtype)
    if gate.is_meta:  # building only for the shapes
        return moe
    with torch.no_grad():
        for expert in range(size.num_experts):
            moe.experts.gate_up_proj[expert] = torch.cat([gate, up])
            moe.experts.down_proj[expert] = down
            if expert and size.noise:
                for weight in (moe.experts.gate_up_proj[expert], moe.experts.down_proj[expert]):
                    noise = torch.randn(weight.shape, generator=generator).to(weight)
                    weight += noise * weight.float().std().to(weight) * size.noise
        moe.gate.weight.copy_(torch.randn(moe.gate.weight.shape, generator=generator) * gate.shape[1] ** -0.5)
    return moe


def moe_layers(module: nn.Module) -> list[MoeMlp]:
    """All routed layers of a model, first to last."""
    return [layer for layer in module.modules() if isinstance(layer, MoeMlp)]


def load_entropy(layers: list[MoeMlp]) -> float:
    """How evenly the experts shared the work since the last reset: 1 = evenly, 0 = one did it all; mean over layers."""
    shares = [layer.load_E / layer.load_E.sum().clamp(min=1) for layer in layers]
    shares = [share for share in shares if len(share) > 1]  # one expert shares with nobody
    entropies = [float(-(s * s.clamp(min=1e-12).log()).sum() / torch.tensor(float(len(s))).log()) for s in shares]
    return sum(entropies) / len(entropies) if entropies else 1.0


def reset_load(layers: list[MoeMlp]) -> None:
    """Start counting again."""
    for layer in layers:
        layer.load_E.zero_()
