"""What annotating would cost, before anything is asked: a few episodes are looked at, the rest is reckoned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from annotators.families import Family
from annotators.observe import Observation, Observer
from annotators.vlm.blank_probe import SHARE, num_blank
from annotators.vlm.costs import FREE, Prices, estimate_input_tokens
from annotators.vlm.protocol import Speaker
from annotators.vlm.questions import CALLS_PER_EPISODE, questions_about
from annotators.vlm.rewording import retelling_question
from dataengine.episode_set import EpisodeSet

_LOOKED_AT = 4
_A_TRACE = "word " * 60  # about as long as one is, with its boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEstimate:
    """Calls, tokens and money of a run. At most: stored answers cost nothing, and most answers are short."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None  # None where no price was named
    video_hours: float
    num_looked_at: int

    def words(self) -> str:
        """One line for people."""
        line = (
            f"at most {self.calls:,} calls, about {self.input_tokens:,} tokens in and at most {self.output_tokens:,} "
            f"out (looked at {self.num_looked_at})"
        )
        if self.cost is None or not self.video_hours:
            return line
        return f"{line}; that costs at most {self.cost:.4g}, {self.cost / self.video_hours:.4g} per hour of video"


def estimate_calls(
    opened: EpisodeSet,
    camera: str | None,
    family: Family,
    speaker: Speaker,
    pending: Sequence[str],
    prices: Prices,
    blank_share: float = SHARE,
) -> CallEstimate:
    """Look at a few episodes of those to be annotated, spread evenly. Calls with blank pictures are counted too."""
    observer = Observer(
        opened,
        camera,
        wants_crops=True,
        wants_sheets="steps" in family.prompts,
        wants_scene=family.is_open,
        things=family.file.things,
    )
    some = pending[:: max(1, -(-len(pending) // _LOOKED_AT))]
    seen = [one for name in some if isinstance(one := observer.observe(name), Observation)]
    asked = [request for one in seen for request in questions_about(family, speaker, one).values()]
    asked += [request for _ in seen for request in retelling_question(family, speaker, _A_TRACE).values()]
    share = len(pending) / len(seen) if seen else 0.0
    calls = math.ceil(share * len(asked))
    if "board" in family.prompts:  # where geometry finds no board it is not asked about: that is not known beforehand
        calls = (CALLS_PER_EPISODE + len({"wordings", "retelling"} & family.prompts.keys())) * len(pending)
    blank_calls = num_blank(calls, blank_share)
    share *= 1 + blank_calls / calls if calls else 1.0
    input_tokens = round(share * sum(map(estimate_input_tokens, asked)))
    output_tokens = round(share * sum(request.speaker.decode.max_tokens for request in asked))
    return CallEstimate(
        calls=calls + blank_calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost=None if prices == FREE else prices.of(input_tokens, output_tokens),
        video_hours=sum(opened.row(name).num_frames for name in pending) / opened.rate_hz / 3600,
        num_looked_at=len(seen),
    )
