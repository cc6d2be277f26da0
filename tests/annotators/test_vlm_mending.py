"""Answers that are cut off or not in form are asked about once more, in calls of their own, against a real server."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vlm_server import Reply, Server, said, serving

from annotators.calls import CallStore
from annotators.vlm.answers import schema_of
from annotators.vlm.endpoint import Endpoint, EndpointClient
from annotators.vlm.mending import MendingClient, Settled, repair, with_more_room
from annotators.vlm.protocol import Decode, ImagePart, Request, Speaker, TextPart, Turn
from annotators.vlm.stored import StoredClient

OK = '{"writing": "4+1=?"}'
PROSE = "The board says 4+1=?"
QUESTION = Request(
    speaker=Speaker(model="m", decode=Decode(max_tokens=16)),
    turns=(
        Turn(role="system", parts=(TextPart("Copy it."),)),
        Turn(role="user", parts=(ImagePart(b"\x89PNG one"),)),
    ),
    schema_name="board",
    schema=schema_of("board"),
)


def settle(server: Server, folder: Path, *, mends: bool = True) -> tuple[Settled, MendingClient, StoredClient]:
    """Ask the question as `annotate` does; the call store stays in the folder."""
    with CallStore.open(f"sqlite:///{folder}/calls.db") as store:
        inner = EndpointClient(Endpoint(urls=(server.url,), model="m", longest_wait_s=0.01, max_attempts=2))
        stored = StoredClient(inner, store)
        client = MendingClient(stored, mends=mends)
        (settled,) = client.ask([QUESTION])
        inner.close()
    return settled, client, stored


def words(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Role and text of every turn that was sent."""
    return [
        (turn["role"], "".join(part.get("text", "<picture>") for part in turn["content"])) for turn in body["messages"]
    ]


def test_a_cut_off_answer_is_asked_for_once_with_more_room(tmp_path: Path) -> None:
    script = [said('{"writing": "4+', finish="length"), said(OK)]
    with serving(lambda body, number: script[number]) as server:
        settled, _, _ = settle(server, tmp_path)
    assert [body["max_tokens"] for body in server.bodies] == [16, 64]
    assert (settled.answer.text, settled.request) == (OK, QUESTION)
    assert settled.call_keys == (QUESTION.key, with_more_room(QUESTION).key)
    with CallStore.open(f"sqlite:///{tmp_path}/calls.db") as store:
        assert [row.outcome for row in store.get_all(settled.call_keys).values()].count("truncated") == 1


def test_an_answer_that_is_cut_off_twice_stays_truncated(tmp_path: Path) -> None:
    with serving(lambda body, number: said("4+", finish="length")) as server:
        settled, _, _ = settle(server, tmp_path)
    assert (settled.answer.outcome, len(server.bodies)) == ("truncated", 2)


def test_prose_is_repaired_once_by_a_call_that_quotes_it_and_states_the_schema(tmp_path: Path) -> None:
    script = [said(PROSE), said(OK)]
    with serving(lambda body, number: script[number]) as server:
        settled, client, stored = settle(server, tmp_path)
        again, _, later = settle(server, tmp_path)
    assert settled.answer.text == OK
    assert settled.call_keys == (QUESTION.key, repair(QUESTION, PROSE).key)
    assert (client.num_mended, client.num_off_schema, client.num_answers) == (1, 1, 2)
    assert (stored.num_made, stored.input_tokens, stored.output_tokens) == (2, 22, 14)
    turns = words(server.bodies[1])
    assert turns[:3] == [("system", "Copy it."), ("user", "<picture>"), ("assistant", PROSE)]
    assert json.dumps(schema_of("board"), sort_keys=True, separators=(",", ":")) in turns[3][1]
    assert again == settled  # a run after a kill, or a second one: the same two calls, both from the store
    assert (later.num_made, later.num_cached, len(server.bodies)) == (0, 2, 2)


def test_a_cut_off_answer_that_is_prose_with_more_room_is_repaired_too(tmp_path: Path) -> None:
    script = [said("The board", finish="length"), said(PROSE), said(OK)]
    with serving(lambda body, number: script[number]) as server:
        settled, client, _ = settle(server, tmp_path)
    assert (settled.answer.text, client.num_mended, len(settled.call_keys)) == (OK, 2, 3)


@pytest.mark.parametrize(
    ("reply", "num_calls"),
    [
        (said(PROSE), 2),  # prose again: once is enough
        (said(None, refusal="I can not."), 1),
        (said(f"```json\n{OK}\n```"), 1),  # it can be read
        (said("4+1<|im_end|>"), 1),  # sent on, it would be an instruction
        (said(OK), 1),
    ],
)
def test_what_a_second_call_can_not_mend_is_not_asked_about(reply: Reply, num_calls: int, tmp_path: Path) -> None:
    with serving(lambda body, number: reply) as server:
        settle(server, tmp_path)
    assert len(server.bodies) == num_calls


def test_an_empty_answer_is_asked_about_in_the_users_own_turn(tmp_path: Path) -> None:
    script = [said(""), said(OK)]
    with serving(lambda body, number: script[number]) as server:
        settled, _, _ = settle(server, tmp_path)
    assert settled.answer.text == OK
    assert [role for role, _ in words(server.bodies[1])] == ["system", "user"]


def test_a_second_call_that_is_refused_leaves_the_first_answer_standing(tmp_path: Path) -> None:
    script = [said("4+", finish="length"), Reply({"error": {"message": "too many tokens"}}, status=400)]
    with serving(lambda body, number: script[number]) as server:
        settled, _, _ = settle(server, tmp_path)
    assert (settled.answer.outcome, settled.call_keys) == ("truncated", (QUESTION.key,))


def test_a_server_that_ignores_the_schema_is_told_from_one_that_keeps_to_it(tmp_path: Path) -> None:
    for name, text in (("keeps", OK), ("ignores", f"```json\n{OK}\n```")):
        (tmp_path / name).mkdir()
        with serving(lambda body, number, text=text: said(text)) as server:
            _, client, _ = settle(server, tmp_path / name)
        assert client.num_off_schema == (name == "ignores")


def test_a_second_call_goes_out_while_first_ones_are_under_way(tmp_path: Path) -> None:
    is_mended = threading.Event()
    slow = replace(QUESTION, rollout=1)

    def answer(body: dict[str, Any], number: int) -> Reply:
        if len(body["messages"]) > 2:
            is_mended.set()
        elif body["seed"] == 0:
            return said(PROSE)
        else:
            assert is_mended.wait(60)
        return said(OK)

    with serving(answer) as server, CallStore.open(f"sqlite:///{tmp_path}/calls.db") as store:
        inner = EndpointClient(Endpoint(urls=(server.url,), model="m", in_flight=2))
        client = MendingClient(StoredClient(inner, store))
        settled = {one.request.key: one.answer.text for one in client.ask([QUESTION, slow])}
        inner.close()
    assert settled == {QUESTION.key: OK, slow.key: OK}
    assert len(server.bodies) == 3


def test_of_many_questions_those_that_are_stored_are_answered_from_there_and_the_rest_asked_once(
    tmp_path: Path,
) -> None:
    questions = [replace(QUESTION, rollout=number % 200) for number in range(300)]
    with serving(lambda body, number: said(OK)) as server, CallStore.open(f"sqlite:///{tmp_path}/calls.db") as store:
        inner = EndpointClient(Endpoint(urls=(server.url,), model="m", in_flight=8))
        first, second = StoredClient(inner, store), StoredClient(inner, store)
        assert len(list(MendingClient(first).ask(questions[50:100]))) == 50
        settled = list(MendingClient(second).ask(questions))
        inner.close()
    assert sorted(one.request.rollout for one in settled) == sorted(one.rollout for one in questions)
    assert (len(server.bodies), second.num_made) == (200, 150)


def test_a_recording_is_replayed_as_it_is(tmp_path: Path) -> None:
    with serving(lambda body, number: said(PROSE)) as server:
        settled, _, _ = settle(server, tmp_path, mends=False)
    assert (settled.answer.text, len(server.bodies)) == (PROSE, 1)
