"""What a run of the small VLM is: its shape, its curriculum, and how it learns."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from schemas.errors import TrainError
from schemas.records import sha256_of
from trainers.recipes import VlmSize
from trainers.vlm.phase import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmConfig:
    """A whole run."""

    name: str
    vlm: VlmSize
    phases: tuple[Phase, ...]
    pictures_per_step: int
    questions_per_picture: int
    sums_per_picture: int  # branches that practise arithmetic and need no picture; cheap, and boards alone are too few
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    seed: int = 0
    # Of the matrix products, where the processor has them; the weights are float32.
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    checkpoint_every: int = 200
    log_every: int = 20
    scene_hands: float = 0.0  # share of simulator scenes and of cut-up tables in a hand drawn for training
    frames_per_scene: int = 16  # of the simulator: fewer are more scenes
    # Heads are not kept with the weights but drawn from the seed, and what is drawn hangs on the blocks of the vision
    # tower: how many there were when these weights met their heads. None: as many as the weights have.
    heads_drawn_beside: int | None = None
    goes_on_from: str | None = None  # the recipe whose weights it starts from; None: from the seed
    stop_after: int | None = None  # leave the curriculum after so many steps; None: at its end

    def __post_init__(self) -> None:
        if not 0 <= self.scene_hands <= 1 or self.frames_per_scene < 1:
            raise TrainError(
                f"recipe {self.name}: scene_hands is a share, 0 to 1, and frames_per_scene at least 1; got "
                f"{self.scene_hands} and {self.frames_per_scene}."
            )

        if self.heads_drawn_beside is not None and not 1 <= self.heads_drawn_beside <= self.vlm.vision_depth:
            raise TrainError(
                f"recipe {self.name}: heads_drawn_beside is {self.heads_drawn_beside}, and the vision tower has 1 to "
                f"{self.vlm.vision_depth} blocks to draw heads beside."
            )

    @property
    def tells_cards(self) -> bool:
        """Whether frames and crops to learn from tell where all cards lie: where scenes come in many hands."""
        return self.scene_hands > 0

    @property
    def num_steps(self) -> int:
        """Optimizer steps over all phases: what the learning rate and the difficulty are stretched over."""
        return sum(phase.steps for phase in self.phases)

    @property
    def last_step(self) -> int:
        """Optimizer steps that are taken."""
        return self.num_steps if self.stop_after is None else min(self.stop_after, self.num_steps)

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and the step counted from its start."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        return self.phases[-1], self.phases[-1].steps - 1

    @property
    def fingerprint(self) -> str:
        """Identity of the recipe."""
        return sha256_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives back an equal config."""
        plain: dict[str, Any] = TypeAdapter(VlmConfig).dump_python(self, mode="json")
        return plain

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "VlmConfig":
        """Read a saved config. Raises TrainError when it is not one."""
        try:
            return TypeAdapter(VlmConfig).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise TrainError(f"saved VLM config is damaged ({where}: {first['msg']}). Train again.") from None


def shortened(config: VlmConfig, steps: int) -> VlmConfig:
    """The same curriculum in about `steps` steps, each phase at least one."""
    share = steps / config.num_steps
    phases = tuple(replace(phase, steps=max(1, round(phase.steps * share))) for phase in config.phases)
    warmup_steps = max(1, round(config.warmup_steps * share))
    return replace(config, phases=phases, warmup_steps=warmup_steps, stop_after=None)
