"""The VLM client against a real HTTP server, the call store in front of it, recordings, and reading answers."""

import base64
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vlm_server import Reply, said, serving

from annotators.calls import CallStore, RawAnswer
from annotators.families import families, load_family
from annotators.traces import UNREAD
from annotators.vlm.answers import BoardAnswer, CardsAnswer, parse
from annotators.vlm.endpoint import Endpoint, EndpointClient
from annotators.vlm.protocol import Decode, ImagePart, Request, Speaker, TextPart, Turn
from annotators.vlm.questions import questions, understand
from annotators.vlm.replay import Replay, ReplayClient, record
from annotators.vlm.stored import StoredClient
from schemas.annotations import Card
from schemas.errors import BackendError, FamilyError

OK = '{"writing": "4+1=?"}'
BUSY = Reply({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})


def question(image: bytes = b"\x89PNG one", **fields: Any) -> Request:
    turns = (
        Turn(role="system", parts=(TextPart("Copy it."),)),
        Turn(role="user", parts=(ImagePart(image),)),
    )
    asked: dict[str, Any] = {
        "speaker": Speaker(model="m"),
        "turns": turns,
        "schema_name": "board",
        "schema": {"type": "object"},
    }
    return Request(**{**asked, **fields})


def ask(url: str, *requests: Request, **settings: Any) -> list[RawAnswer]:
    client = EndpointClient(Endpoint(urls=(url,), model="m", longest_wait_s=0.01, **settings))
    answers = {request.key: answer for lot in client.ask(requests) for request, answer in lot}
    return [answers[request.key] for request in requests]


def test_the_request_carries_words_picture_schema_and_decode_parameters() -> None:
    with serving(lambda body, number: said(OK)) as server:
        (answer,) = ask(server.url, question(speaker=Speaker(model="m", decode=Decode(max_tokens=9, seed=4))))
    assert (answer.outcome, answer.text, answer.input_tokens, answer.output_tokens) == ("success", OK, 11, 7)
    (body,) = server.bodies
    assert body["path"] == "/v1/chat/completions"
    assert (body["model"], body["max_tokens"], body["seed"], body["temperature"]) == ("m", 9, 4, 0.0)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    url = body["messages"][1]["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/png;base64,")) == b"\x89PNG one"


def test_a_question_asked_again_on_purpose_is_drawn_again() -> None:
    """A server that obeys the seed would else repeat its answer under another key."""
    with serving(lambda body, number: said(OK)) as server:
        ask(server.url, question(), question(rollout=2))
    assert sorted(body["seed"] for body in server.bodies) == [0, 2]


def test_429_and_500_are_tried_again_until_an_answer_comes() -> None:
    script = [BUSY, Reply({"error": "x"}, status=500), Reply(b"gateway", status=503), said(OK)]
    with serving(lambda body, number: script[number]) as server:
        (answer,) = ask(server.url, question())
    assert answer.outcome == "success"
    assert len(server.bodies) == 4


def test_a_400_is_not_tried_again() -> None:
    with serving(lambda body, number: Reply({"error": {"message": "bad picture"}}, status=400)) as server:
        (answer,) = ask(server.url, question())
    assert answer.outcome == "error"
    assert "bad picture" in answer.text
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [401, 404])
def test_a_refused_key_or_an_unknown_model_ends_the_run_in_one_sentence(status: int) -> None:
    with (
        serving(lambda body, number: Reply({"error": {"message": "no such model"}}, status=status)) as server,
        pytest.raises(BackendError, match="refuses model 'm'"),
    ):
        ask(server.url, question())


def test_answers_that_were_under_way_when_a_call_was_refused_are_stored_first(tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def answer(body: dict[str, Any], number: int) -> Reply:
        if number < 2:
            together.wait(60)  # both are under way
        if b"PNG one" in base64.b64decode(body["messages"][1]["content"][0]["image_url"]["url"].partition(",")[2]):
            return Reply({"error": {"message": "key expired"}}, status=401)
        time.sleep(0.5)
        return said(OK)

    slow = question(b"\x89PNG two")
    with serving(answer) as server, CallStore.open(f"sqlite:///{tmp_path}/calls.db") as store:
        client = StoredClient(EndpointClient(Endpoint(urls=(server.url,), model="m", in_flight=2)), store)
        with pytest.raises(BackendError, match="refuses model"):
            list(client.ask([question(), slow, *(question(b"%d" % n) for n in range(9))]))
        assert len(server.bodies) <= 4  # what had not begun was not sent
        stored = store.get(slow.key)
    assert stored is not None
    assert stored.text == OK


def test_a_server_that_is_not_there_is_an_error_and_later_calls_are_skipped() -> None:
    with serving(lambda body, number: said(OK)) as gone:
        pass
    answers = ask(gone.url, *(question(b"%d" % n) for n in range(12)), max_attempts=2, in_flight=1)
    assert [answer.outcome for answer in answers] == ["error"] * 8 + ["skipped"] * 4
    assert "no answer after 2 tries" in answers[0].text


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (said('{"writing": "4+', finish="length"), "truncated"),
        (said("", finish="content_filter"), "blocked"),
        (said(None, refusal="I can not."), "blocked"),
        (said(""), "invalid"),
        (Reply({"choices": []}), "invalid"),
        (Reply(b"<html>proxy</html>", headers={"Content-Type": "text/html"}), "invalid"),
        (said(None, reasoning_content=OK), "success"),
        (Reply({"choices": [{"message": None}]}), "invalid"),
        (Reply({"choices": ["words"]}), "invalid"),
        (Reply([OK]), "invalid"),
        (said([{"type": "text", "text": OK}]), "invalid"),  # type: ignore[arg-type]  # what a server must not send
        (Reply({**said(OK).body, "usage": {"prompt_tokens": "n"}}), "invalid"),
        (Reply({**said(OK).body, "usage": {"prompt_tokens": 10**30}}), "invalid"),
        (Reply({**said(OK).body, "usage": None}), "success"),
    ],
)
def test_each_way_of_not_answering_has_its_own_outcome_and_is_not_asked_again(reply: Reply, outcome: str) -> None:
    with serving(lambda body, number: reply) as server:
        (answer,) = ask(server.url, question())
    assert answer.outcome == outcome
    assert answer.raw_json
    assert len(server.bodies) == 1


def test_several_servers_take_turns() -> None:
    with serving(lambda body, number: said(OK)) as one, serving(lambda body, number: said(OK)) as other:
        client = EndpointClient(Endpoint(urls=(one.url, other.url), model="m"))
        assert sum(map(len, client.ask([question(b"%d" % n) for n in range(6)]))) == 6
    assert (len(one.bodies), len(other.bodies)) == (3, 3)


def test_the_key_comes_from_the_environment_and_is_stored_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAB_VLM_KEY", "s3cret-word")
    with serving(lambda body, number: said(OK)) as server, CallStore.open(f"sqlite:///{tmp_path}/calls.db") as store:
        client = EndpointClient(Endpoint(urls=(server.url,), model="m", api_key_env="LAB_VLM_KEY"))
        list(StoredClient(client, store).ask([question()]))
    assert server.headers[0]["authorization"] == "Bearer s3cret-word"
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert OK.encode() in stored.replace(b'\\"', b'"')
    assert b"s3cret-word" not in stored


def test_a_proxy_that_the_environment_names_is_used_but_for_hosts_that_it_excepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda body, number: said(OK)) as server:
        host = server.url.removeprefix("http://").removesuffix("/v1")
        monkeypatch.setenv("http_proxy", f"http://me:s3cret-word@{host}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        asked = [ask(url, question()) for url in ("http://models.invalid/v1", server.url)]
    assert [answer.outcome for (answer,) in asked] == ["success", "success"]
    assert [body["path"] for body in server.bodies] == [
        "http://models.invalid/v1/chat/completions",
        "/v1/chat/completions",
    ]
    who = base64.b64encode(b"me:s3cret-word").decode()
    assert [headers.get("proxy-authorization") for headers in server.headers] == [f"Basic {who}", None]


def test_a_proxy_of_a_kind_that_is_not_spoken_ends_the_run_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://me:s3cret-word@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(BackendError, match=r"names a socks5 proxy for http://models\.invalid/v1") as raised:
        ask("http://models.invalid/v1", question())
    assert "s3cret-word" not in str(raised.value)


def test_asking_again_costs_nothing_and_an_error_is_asked_again(tmp_path: Path) -> None:
    down = Reply({"error": "x"}, status=500)
    with serving(lambda body, number: down if number < 2 else said(OK)) as server:
        url = f"sqlite:///{tmp_path}/calls.db"
        outcomes = []
        for _ in range(3):
            with CallStore.open(url) as store:
                inner = EndpointClient(Endpoint(urls=(server.url,), model="m", max_attempts=2, longest_wait_s=0.01))
                client = StoredClient(inner, store)
                ((_, answer),) = client.ask([question()])
                outcomes.append((answer.outcome, client.num_made, client.num_cached))
    assert outcomes == [("error", 1, 0), ("success", 1, 0), ("success", 0, 1)]
    assert len(server.bodies) == 3


def test_an_answer_is_durable_before_anyone_sees_it(tmp_path: Path) -> None:
    with serving(lambda body, number: said("no JSON at all")) as server:
        url = f"sqlite:///{tmp_path}/calls.db"
        with CallStore.open(url) as store:
            client = StoredClient(EndpointClient(Endpoint(urls=(server.url,), model="m")), store)
            for request, _ in client.ask([question()]):
                with CallStore.open(url) as other:
                    found = other.get(request.key)
                assert found is not None
                assert found.text == "no JSON at all"


def test_the_same_crop_twice_is_one_call(tmp_path: Path) -> None:
    with (
        serving(lambda body, number: said(OK)) as server,
        CallStore.open(f"sqlite:///{tmp_path}/calls.db") as store,
    ):
        client = StoredClient(EndpointClient(Endpoint(urls=(server.url,), model="m")), store)
        assert len(list(client.ask([question(), question()]))) == 2
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"speaker": Speaker(model="n")},
        {"speaker": Speaker(model="m", revision="int4")},
        {"speaker": Speaker(model="m", decode=Decode(seed=1))},
        {"schema": {"type": "array"}},
        {"rollout": 1},
        {"turns": (Turn(role="user", parts=(TextPart("Copy it!"),)),)},
    ],
)
def test_everything_that_can_change_an_answer_changes_the_key(other: dict[str, Any]) -> None:
    assert question().key == question().key
    assert question(**other).key != question().key
    assert question(b"\x89PNG two").key != question().key


def test_a_picture_is_kept_as_its_hash_only() -> None:
    assert "PNG one" not in question().to_json()
    assert base64.b64encode(b"\x89PNG one").decode() not in question().to_json()


@pytest.mark.parametrize("text", [OK, f"```json\n{OK}\n```", f"  ```\n{OK}\n```  "])
def test_a_server_that_ignores_the_schema_is_understood_if_it_answers_in_form(text: str) -> None:
    assert parse(RawAnswer(outcome="success", text=text), BoardAnswer) == BoardAnswer(writing="4+1=?")


@pytest.mark.parametrize(
    "text", ["The board says 4+1.", '{"writing": 41}', '{"writing": "4+1", "sure": true}', "{}", "", "[]"]
)
def test_anything_else_is_not_guessed_at(text: str) -> None:
    assert parse(RawAnswer(outcome="success", text=text), BoardAnswer) is None


def test_an_answer_with_a_chat_marker_or_more_cards_than_a_table_holds_is_not_in_the_asked_form() -> None:
    assert parse(RawAnswer(outcome="success", text='{"writing": "4+1<|im_end|>"}'), BoardAnswer) is None
    for texts in (["3", "<|image_pad|>"], ["3"] * 7):
        cards = json.dumps({"cards": [{"text": text, "position": "unknown"} for text in texts]})
        assert parse(RawAnswer(outcome="success", text=cards), CardsAnswer) is None


def test_without_a_board_nobody_is_asked_about_it() -> None:
    asked = questions(load_family("math-matching"), Speaker(model="m"), {"cards": b"c"})
    assert list(asked) == ["cards"]
    cards = json.dumps({"cards": [{"text": "3", "position": "left"}]})
    told = understand({"cards": RawAnswer(outcome="success", text=cards)}, ())
    assert (told.readings.first, told.readings.second, told.num_invalid) == (None, None, 0)


def test_a_truncated_answer_is_not_parsed_even_if_it_happens_to_close() -> None:
    assert parse(RawAnswer(outcome="truncated", text=OK), BoardAnswer) is None


def test_the_board_questions_know_neither_cards_nor_each_other() -> None:
    family = load_family("math-matching")
    asked = questions(family, Speaker(model="m"), {"board_first": b"a", "board_second": b"b", "cards": b"c"})
    words = [part.text for part in asked["board_first"].turns[0].parts if isinstance(part, TextPart)]
    assert words == [family.prompts["board"]]
    assert "card" not in words[0].lower()
    pictures = {name: request.turns[1].parts for name, request in asked.items()}
    assert pictures == {
        "board_first": (ImagePart(b"a"),),
        "board_second": (ImagePart(b"b"),),
        "cards": (ImagePart(b"c"),),
    }


def test_answers_take_places_from_geometry_and_say_unread_for_what_was_not_said() -> None:
    seen = (
        Card(text=UNREAD, position="left", box_xyxy=(0, 0, 9, 9)),
        Card(text=UNREAD, position="middle", box_xyxy=(10, 0, 19, 9)),
        Card(text=UNREAD, position="right", box_xyxy=(20, 0, 29, 9)),
    )
    texts = [("3", "unknown"), (None, "left"), ("5", "right")]
    cards = json.dumps({"cards": [{"text": text, "position": position} for text, position in texts]})
    answers = {
        name: RawAnswer(outcome="success", text=text)
        for name, text in {"board_first": OK, "board_second": "prose", "cards": cards}.items()
    }
    told = understand(answers, seen)
    assert [(card.text, card.position) for card in told.cards] == [("3", "left"), (UNREAD, "middle"), ("5", "right")]
    assert told.cards[0].box_xyxy == (0, 0, 9, 9)
    assert (told.readings.first, told.readings.second, told.num_invalid) == ("4+1=?", None, 1)


def test_a_recording_replays_and_what_is_not_in_it_is_skipped(tmp_path: Path) -> None:
    speaker = Speaker(model="m", revision="r1", decode=Decode(max_tokens=64))
    known = question(speaker=speaker)
    lost = replace(known, rollout=1)
    path = tmp_path / "answers.jsonl"
    record(
        path, speaker, [(known, RawAnswer(outcome="success", text=OK)), (lost, RawAnswer(outcome="error", text="x"))]
    )
    client = ReplayClient(Replay(path=path))
    assert client.speaker == speaker
    assert [answer.outcome for lot in client.ask([known, lost]) for _, answer in lot] == ["success", "skipped"]


def test_a_damaged_recording_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    record(path, Speaker(model="m"), [(question(), RawAnswer(outcome="success", text=OK))])
    path.write_text(path.read_text() + '{"key": "k"}\n')
    with pytest.raises(BackendError, match="line 3: outcome"):
        ReplayClient(Replay(path=path))
    with pytest.raises(BackendError, match="can not be read"):
        ReplayClient(Replay(path=tmp_path / "absent.jsonl"))


def test_an_unknown_family_suggests_the_nearest_and_a_wrong_one_names_the_field(tmp_path: Path) -> None:
    assert families() == ["generic", "math-matching", "toy-placement"]
    with pytest.raises(FamilyError, match="Did you mean 'math-matching'"):
        load_family("math-maching")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "family.yaml").write_text("name: mine\nversion: 0\nabout: x\nfields: [trace]\n")
    with pytest.raises(FamilyError, match="version"):
        load_family("mine", home=tmp_path)


def test_changing_a_prompt_changes_its_hash() -> None:
    family = load_family("math-matching")
    changed = replace(family, prompts={**family.prompts, "board": family.prompts["board"] + " "})
    assert changed.prompt_hash != family.prompt_hash
    for prompt in family.prompts.values():
        assert "not instructions" in prompt  # the fence around what is written in the scene
