"""One item of a ledger from its raw rows: what is said, what stands, and for whom it waits. See plain_figures.py."""

import json
from dataclasses import dataclass
from typing import Any

BOXES = ("board_box_xyxy", "boxed_in", "box_xyxy", "picture")  # where something was seen is no part of the words
SETTLED = {"accept", "edit", "reject"}


def words(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: words(part) for name, part in value.items() if name not in BOXES}
    return [words(part) for part in value] if isinstance(value, list) else value


def inner_ns(payload: dict[str, Any]) -> list[int]:
    return sorted(part["start_ns"] for part in payload["segments"][1:]) if "segments" in payload else []


def claims(payload: dict[str, Any]) -> dict[str, Any]:
    """Field -> what is said; segments are their names, the boundaries have figures of their own."""
    found = {name: value for name, value in words(payload).items() if name not in ("kind", "events", "segments")}
    if "segments" in payload:
        found["labels"] = [(part["label"], part["end_effector"]) for part in payload["segments"]]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item's rows, in their order."""

    item_id: str
    episode_id: str
    field: str
    proposals: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    overlap: int
    truth: str | None  # id of the decision that was made gold

    def said(self, decision: dict[str, Any]) -> dict[str, Any] | None:
        """The words that somebody stands for; None for a reject."""
        if decision["action"] == "reject":
            return None
        if decision["payload"] is not None:
            return dict(decision["payload"])
        return self.base(decision)

    def base(self, decision: dict[str, Any]) -> dict[str, Any]:
        [base] = [row for row in self.proposals if row["proposal_id"] == decision["base_proposal_id"]]
        return dict(base["body"]["payload"])

    @property
    def live(self) -> list[dict[str, Any]]:
        gone = {row["undoes"] for row in self.decisions}
        return [row for row in self.decisions if row["action"] != "undo" and row["decision_id"] not in gone]

    @property
    def gold(self) -> dict[str, Any] | None:
        return next((row for row in self.live if row["decision_id"] == self.truth), None)

    @property
    def votes(self) -> dict[str, dict[str, Any]]:
        blind = [row for row in self.live if row["action"] in SETTLED and row["track"] == "review"]
        return {row["reviewer"]: row for row in blind}

    @property
    def standing(self) -> dict[str, Any] | None:
        made = [row for row in self.live if row["action"] in SETTLED]
        if self.gold:
            return self.gold
        if self.overlap == 1:
            return made[-1] if made else None
        if rulings := [row for row in made if row["track"] == "adjudication"]:
            return rulings[-1]
        is_one = len({json.dumps(words(self.said(row)), sort_keys=True) for row in self.votes.values()}) == 1
        return made[-1] if is_one and len(self.votes) >= self.overlap else None

    @property
    def is_disputed(self) -> bool:
        return self.standing is None and len(self.votes) >= self.overlap > 1

    @property
    def is_conflict(self) -> bool:
        if self.standing is None:
            return False
        newer = [row["body"]["payload"] for row in self.proposals if row["seq"] > self.standing["seq"]]
        held = self.said(self.standing) or self.base(self.standing)
        return any(words(payload) != words(held) for payload in newer)

    @property
    def waits(self) -> str:
        """For whom; empty when for nobody."""
        if self.gold:
            return "gold"
        if self.standing is None:
            return "adjudication" if self.is_disputed else "review"
        if not self.is_conflict:
            return ""
        return "adjudication" if self.overlap > 1 else "review"

    @property
    def head(self) -> dict[str, Any]:
        return self.proposals[-1]

    @property
    def stratum(self) -> str:
        payload = self.head["body"]["payload"]
        if "segments" in payload:
            return f"{len(payload['segments'])} segments"
        signs = [sign for sign in "+-\u00d7" if sign in (payload["board"] or "")]
        return f"sum with {signs[0]}" if signs else "no sum"

    @property
    def doubt(self) -> str:
        """Why programs want it looked at; empty when nothing speaks against it."""
        newest = {row["speaker"]: json.dumps(words(row["body"]["payload"]), sort_keys=True) for row in self.proposals}
        if "fail" in self.head["verdicts"]:
            return "a verifier failed"
        if len(set(newest.values())) > 1 or self.is_conflict:
            return "models disagree"
        return "" if self.head["verdicts"] == {"pass"} else "a verifier could not tell"

    @property
    def audit(self) -> str:
        if self.standing is None:
            return ""
        if self.standing["basis"] == "batch":
            return "batch"
        return "right" if words(self.said(self.standing)) == words(self.head["body"]["payload"]) else "wrong"
