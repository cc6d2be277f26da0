"""One stretch of the small VLM's curriculum: what is asked, how hard it is, and what each loss weighs."""

from dataclasses import asdict, dataclass

from dataengine.rendered import Difficulty, Skill
from schemas.errors import TrainError


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of the curriculum; difficulty runs linearly from `start` to `end` over it."""

    name: str
    steps: int
    skills: tuple[tuple[Skill, float], ...]  # with the weight by which they are asked
    start: Difficulty
    end: Difficulty
    text_weight: float  # 0: words are not even computed
    glyph_weight: float  # of the loss that says which character stands in which part of a patch
    sheets_share: float = 0.0  # of pictures that are sheets full of characters; only where no words are computed
    frames_share: float = 0.0  # of pictures that are simulator frames, once there are some
    crops_share: float = 0.0  # of steps that are about crops with the prompts of `annotate`, once there are some
    token_weight: float = 0.0  # of the loss that says where each picture token lies and which characters it holds
    thing_weight: float = 0.0  # of the loss that says which object of which colour each picture token holds
    card_weight: float = 0.0  # of the loss that says which number the card in each picture token shows
    gaze_weight: float = 0.0  # of the loss that says where in the picture the words of an answer are found
    crops_evenly: bool = False  # cards as often as boards, of which there are four times as many
    most_cards: int | None = None  # where cards are the question: one to so many
    asks_places: bool = False  # also asks which of three cards lies where
    asks_things: bool = False  # also asks where objects lie
    point_step_px: int = 1  # points are learned in such steps: what an answer can not know is noise to learn from

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.skills or not 0 <= self.frames_share < 1 or not 0 <= self.crops_share < 1:
            raise TrainError(f"phase {self.name} needs steps, skills and shares of frames and crops in 0..1.")
        if self.point_step_px < 1:
            raise TrainError(
                f"phase {self.name}: point_step_px is {self.point_step_px}. Points go in steps of 1 or more."
            )
        if self.sheets_share and self.text_weight:
            raise TrainError(f"phase {self.name}: nobody asks about sheets. Set sheets_share or text_weight to 0.")

    def difficulty(self, step: int) -> Difficulty:
        """At a step counted from the phase's start."""
        share = step / max(1, self.steps - 1)
        low, high = asdict(self.start), asdict(self.end)
        return Difficulty(**{name: low[name] + (high[name] - low[name]) * share for name in low})
