"""How fast a server is asked and what it may cost: the arithmetic alone, and against a real server."""

import io
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vlm_server import Reply, said, serving

from annotators.calls import CallStore, RawAnswer
from annotators.vlm.costs import Prices, Purse, estimate_input_tokens
from annotators.vlm.endpoint import Endpoint, EndpointClient
from annotators.vlm.limits import Lane, Meter
from annotators.vlm.protocol import Decode, ImagePart, Request, Speaker, TextPart, Turn
from annotators.vlm.stored import StoredClient
from schemas.errors import BackendError

OK = '{"writing": "4+1=?"}'
DEAR = Prices(input_per_million=1e6, output_per_million=1e6)  # one a token


def question(number: int, max_tokens: int = 10) -> Request:
    return Request(
        speaker=Speaker(model="m", decode=Decode(max_tokens=max_tokens)),
        turns=(Turn(role="user", parts=(TextPart(f"{number:03d}"),)),),
        schema_name="board",
        schema={"type": "object"},
    )


def ask(url: str | tuple[str, ...], count: int, **settings: Any) -> tuple[list[RawAnswer], EndpointClient]:
    urls = (url,) if isinstance(url, str) else url
    client = EndpointClient(Endpoint(**{"urls": urls, "model": "m", "max_attempts": 3, **settings}))
    answers = [answer for lot in client.ask([question(n) for n in range(count)]) for _, answer in lot]
    client.close()
    return answers, client


def outcomes(answers: list[RawAnswer]) -> dict[str, int]:
    names = [answer.outcome for answer in answers]
    return {name: names.count(name) for name in sorted(set(names))}


class Crowd:
    """Counts how many callers are inside at once, and when each came.

    Those who are let in stay until so many came, so that it fills up however slowly callers come.
    """

    def __init__(self, room: int | None = None, stay_s: float = 0.02, until_came: int = 0) -> None:
        self.most = self.inside = 0
        self.came_s: list[float] = []
        self._room, self._stay_s, self._lock = room, stay_s, threading.Lock()
        self._until_came, self._all_came = until_came, threading.Event()

    def __call__(self, body: dict[str, Any], number: int) -> Reply:
        with self._lock:
            self.came_s.append(time.monotonic())
            self.inside += 1
            full = self._room is not None and self.inside > self._room
            self.most = max(self.most, self.inside)
            if len(self.came_s) >= self._until_came:
                self._all_came.set()
        if not full:
            self._all_came.wait(60)
        time.sleep(self._stay_s)
        with self._lock:
            self.inside -= 1
        return Reply({"error": {"message": "full"}}, status=429, headers={"Retry-After": "0"}) if full else said(OK)


def test_a_lane_narrows_by_half_when_refused_and_widens_by_one_a_round() -> None:
    lane = Lane(8)
    for _ in range(8):
        lane.refused(now_s=0.0, wait_s=0.0)
    assert lane.limit == 4
    for _ in range(4):
        lane.answered()
    assert lane.limit == 5
    for _ in range(100):
        lane.answered()
    assert lane.limit == 8


def test_a_lane_does_not_narrow_for_one_refusal_in_twenty() -> None:
    lane = Lane(20)
    for number in range(200):
        lane.refused(0.0, 9.0) if number % 20 == 0 else lane.answered()
    assert (lane.limit, lane.is_open(19, now_s=1.0)) == (20, True)


def test_a_lane_that_refuses_everybody_rests_as_long_as_it_was_told() -> None:
    lane = Lane(64)
    for _ in range(8):
        lane.refused(now_s=100.0, wait_s=20.0)
    assert not lane.is_open(0, now_s=119.0)
    assert lane.is_open(0, now_s=120.0)


def test_a_meter_spreads_units_over_the_minute_and_takes_back_what_was_not_used() -> None:
    meter = Meter(60)
    assert [meter.reserve(1, now_s=5.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    meter.give_back(1)
    assert meter.reserve(1, now_s=5.0) == 2.0
    assert meter.reserve(1, now_s=60.0) == 0.0  # what was not used in time is not saved up
    assert Meter(None).reserve(10**9, now_s=0.0) == 0.0


def test_a_purse_never_promises_more_than_it_holds() -> None:
    purse = Purse(10.0)
    assert [purse.reserve(4.0) for _ in range(3)] == [True, True, False]
    assert purse.awaits_change
    purse.settle(4.0, 1.0)
    assert purse.reserve(4.0)
    purse.settle(4.0, 4.0)
    purse.settle(4.0, 4.0)
    assert (purse.spent, purse.reserve(2.0), purse.awaits_change) == (9.0, False, False)


def test_pictures_count_by_their_size_and_words_by_their_length() -> None:
    file = io.BytesIO()
    Image.new("RGB", (280, 280)).save(file, "PNG")
    turn = Turn(role="user", parts=(TextPart("x" * 30), ImagePart(file.getvalue())))
    request = Request(speaker=Speaker(model="m"), turns=(turn,), schema_name="board", schema={})
    assert 100 <= estimate_input_tokens(request) - 10 <= 120


def test_no_more_calls_than_allowed_are_under_way() -> None:
    crowd = Crowd(until_came=5)
    with serving(crowd) as server:
        answers, _ = ask(server.url, 40, in_flight=5)
    assert (outcomes(answers), crowd.most) == ({"success": 40}, 5)


def test_a_server_with_less_room_than_asked_for_is_asked_less_at_a_time() -> None:
    answers, limits = [], []
    # Four stay inside until 48 others were refused: a round of 32, halved, and one of 16, halved again.
    with serving(Crowd(room=4, until_came=52)) as server:
        settings = Endpoint(urls=(server.url,), model="m", in_flight=32, max_attempts=20, longest_wait_s=0.2)
        client = EndpointClient(settings)
        for lot in client.ask([question(n) for n in range(60)]):
            answers += [answer for _, answer in lot]
            limits.append(client._lanes[0].limit)
        client.close()
    assert outcomes(answers) == {"success": 60}
    assert min(limits) <= 12  # 8, and then some: the last calls meet an empty server, and the limit climbs again


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str) -> None:
    came_s: list[float] = []

    def answer(body: dict[str, Any], number: int) -> Reply:
        came_s.append(time.monotonic())
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: 1 to 2 from now
        header = "0.4" if form == "seconds" else date
        return said(OK) if number else Reply({"error": "x"}, status=429, headers={"Retry-After": header})

    with serving(answer) as server:
        answers, _ = ask(server.url, 1)
    assert outcomes(answers) == {"success": 1}
    assert came_s[1] - came_s[0] >= (0.4 if form == "seconds" else 0.9)


def test_a_server_that_says_to_come_back_tomorrow_is_not_waited_for() -> None:
    busy = Reply({"error": "quota"}, status=429, headers={"Retry-After": "86400"})
    with serving(lambda body, number: busy) as server:
        answers, _ = ask(server.url, 1)
    assert (outcomes(answers), len(server.bodies)) == ({"error": 1}, 1)


def test_cut_connections_and_answers_that_drip_for_ever_are_tried_again() -> None:
    replies = [
        Reply(said(OK).body, is_cut=True),
        Reply(said(OK).body, drip_s=0.05),
        Reply(said(OK).body, drip_s=0.02, drip_bytes=50),
    ]
    with serving(lambda body, number: replies[min(number, 2)]) as server:
        # Long beside the good answer's 0.1 s, so that a busy machine does not lose it too; the dripping one takes 12 s.
        answers, _ = ask(server.url, 1, timeout_s=4.0, max_attempts=9)
    assert (outcomes(answers), len(server.bodies)) == ({"success": 1}, 3)


def test_a_dead_url_among_several_costs_no_answer() -> None:
    with serving(Crowd(stay_s=0.0)) as gone:
        pass
    with serving(Crowd()) as alive:
        answers, _ = ask((gone.url, alive.url), 30, in_flight=4, max_attempts=6)
    assert (outcomes(answers), len(alive.bodies)) == ({"success": 30}, 30)


def test_a_server_that_is_gone_is_given_up_in_time_and_one_that_says_when_to_come_back_is_not() -> None:
    with serving(Crowd()) as gone:
        pass
    answers, client = ask(gone.url, 40, patience_s=0.5, max_attempts=50, longest_wait_s=0.2)
    assert client.is_gone
    assert "no call was answered for 0.5 s" in client.stopped
    assert set(outcomes(answers)) == {"error", "skipped"}
    busy = Reply({"error": "x"}, status=429, headers={"Retry-After": "0.3"})
    with serving(lambda body, number: busy if number < 4 else said(OK)) as server:
        answers, client = ask(server.url, 1, patience_s=0.5, max_attempts=5, longest_wait_s=0.4)
    assert (outcomes(answers), client.is_gone) == ({"success": 1}, False)


def test_requests_and_tokens_per_minute_are_kept() -> None:
    for limit in ({"requests_per_minute": 1200}, {"tokens_per_minute": 18 * 1200}):  # the server says 18 tokens each
        crowd = Crowd(stay_s=0.0)
        asked_s = time.monotonic()  # the first call may come late; the others keep their distance to when it was asked
        with serving(crowd) as server:
            ask(server.url, 9, in_flight=1, **limit)
        assert 0.39 <= crowd.came_s[-1] - asked_s <= 30.0  # and nobody waits for the next minute


def test_a_budget_is_never_overspent_and_the_rest_is_not_asked() -> None:
    most = 11 + 10  # tokens in as the server counts them, and the most there may be out
    with serving(Crowd()) as server:
        answers, client = ask(server.url, 30, in_flight=8, prices=DEAR, budget=100.0)
    assert client.cost == 18 * len(server.bodies) <= 100
    assert 100 - client.cost < most  # and all of it was used that could be
    assert outcomes(answers) == {"skipped": 30 - len(server.bodies), "success": len(server.bodies)}
    assert "the budget of 100 is used up" in client.stopped


def test_refused_calls_cost_nothing_and_lost_ones_count_as_paid() -> None:
    for reply, tries in ((Reply({"error": "x"}, status=500), 0), (Reply(said(OK).body, is_cut=True), 3)):
        with serving(lambda body, number, reply=reply: reply) as server:
            _, client = ask(server.url, 1, prices=DEAR, longest_wait_s=0.01)
        assert client.cost == tries * (estimate_input_tokens(question(0)) + 10)


def test_a_budget_needs_prices_and_a_url_holds_no_secret() -> None:
    with pytest.raises(BackendError, match="--price-in"):
        Endpoint(urls=("http://h/v1",), model="m", budget=1.0)
    for url in ("https://me:s3cret-word@h/v1", "https://h/v1?key=s3cret-word"):
        with pytest.raises(BackendError, match="Give the bare URL") as raised:
            Endpoint(urls=(url,), model="m")
        assert "s3cret-word" not in str(raised.value)


@pytest.mark.parametrize("status", [200, 400, 500, 401])
def test_a_key_that_the_server_repeats_is_stored_and_told_nowhere(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret-word")
    told = {**said(OK).body, "error": {"message": "your key s3cret-word"}}
    with (
        serving(lambda body, number: Reply(told, status=status)) as server,
        CallStore.open(f"sqlite:///{tmp_path}/calls.db") as store,
    ):
        client = EndpointClient(Endpoint(urls=(server.url,), model="m", max_attempts=2, longest_wait_s=0.01))
        raised = pytest.raises(BackendError, match=r"your key \*\*\*") if status == 401 else nullcontext()
        with raised:
            assert "s3cret-word" not in repr(list(StoredClient(client, store).ask([question(0)])))
    assert b"s3cret-word" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
