"""A model that knows what the simulator wrote: it answers what it is shown, and nothing where it is shown nothing."""

import base64
import json
import threading
from pathlib import Path
from typing import Any

from vlm_server import Reply, said

from annotators.observe import Observation, Observer
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.refs import Ref

SIM = Ref("sim", "1")
NUM_EPISODES = 2


def shown(opened: EpisodeSet) -> dict[bytes, tuple[str, str]]:
    """Every crop a model is shown: PNG bytes -> (episode, which crop)."""
    observer = Observer(opened, "cam_high", wants_crops=True)
    crops = {}
    for name in opened.ids():
        seen = observer.observe(name)
        assert isinstance(seen, Observation)
        crops |= {data: (name, crop) for crop, data in seen.crops.items()}
    return crops


class Oracle:
    """Answers from ground truth by looking the picture up; `wrong` names a crop it lies about (in one episode).

    In a blank picture it sees nothing; a blind one says the same whatever it is shown.
    """

    def __init__(
        self,
        home: Path,
        truth: dict[str, dict[str, Any]],
        wrong: str | None = None,
        wrong_about: str | None = None,
        is_blind: bool = False,
    ) -> None:
        self.crops = shown(EpisodeSet.open(Workspace.at(home), SIM))
        self.truth = truth
        self.wrong = wrong
        self.wrong_about = wrong_about
        self.is_blind = is_blind
        self.lock = threading.Lock()

    def __call__(self, body: dict[str, Any], number: int) -> Reply:
        url = body["messages"][1]["content"][0]["image_url"]["url"]
        data = base64.b64decode(url.partition(",")[2])
        asked = body["response_format"]["json_schema"]["name"]
        if self.is_blind:
            some = {"text": "5", "position": "middle"}
            return said(json.dumps({"cards": [some]} if asked == "cards" else {"writing": "4+1"}))
        if data not in self.crops:
            return said(json.dumps({"cards": []} if asked == "cards" else {"writing": None}))
        name, crop = self.crops[data]
        row = self.truth[name]
        if crop == "cards":
            sides = ("left", "middle", "right")
            cards = [{"text": str(n), "position": side} for n, side in zip(numbers(row), sides, strict=True)]
            return said(json.dumps({"cards": cards}))
        lies = crop == self.wrong and self.wrong_about in (None, name)
        board = "0+0" if lies else equation(row)
        return said(json.dumps({"writing": f"{board}=?"}))


def equation(row: dict[str, Any]) -> str:
    return str(row["equation"])


def numbers(row: dict[str, Any]) -> list[int]:
    return [int(card["number"]) if isinstance(card, dict) else int(card) for card in row["cards"]]
