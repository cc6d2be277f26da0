"""A real model behind the real HTTP server: OpenAI's own client, our `endpoint` backend, and everything it refuses."""

import base64
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest
import torch
from PIL import Image
from tiny_vlm import save_tiny_vlm

from annotators.annotate import annotate
from annotators.calls import CALLS, CallStore
from annotators.ledger import Ledger
from annotators.ledger.engine import reading
from annotators.vlm.chat_model import Answer, ChatModel, NoAnswer, Prompt, fingerprint
from annotators.vlm.endpoint import Endpoint
from annotators.vlm.local import Local
from annotators.vlm.protocol import Decode
from apps.server.vlm_server import VlmServer, running_vlm_server
from apps.sim.simulate import simulate
from dataengine.convert import convert
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

ROOT = Path(__file__).resolve().parent.parent.parent
SIM = Ref("sim", "1")
SCHEMA = {
    "type": "object",
    "properties": {"card": {"enum": ["left", "middle", "right"]}, "sure": {"type": "boolean"}},
    "required": ["card", "sure"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "card", "schema": SCHEMA, "strict": True}}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vlm(tmp_path_factory.mktemp("models") / "tiny-vlm")


@pytest.fixture(scope="module")
def model(folder: Path) -> ChatModel:
    return ChatModel(folder, "cpu")


@pytest.fixture(scope="module")
def server(model: ChatModel, folder: Path) -> Iterator[VlmServer]:
    with running_vlm_server(model, revision=fingerprint(folder), max_body_bytes=200_000) as running:
        yield running


def url(server: VlmServer) -> str:
    return f"http://127.0.0.1:{server.port}/v1"


def picture(shade: int = 90, *, form: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", (160, 120), (shade, 40, 200)).save(file, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def body(**fields: Any) -> dict[str, Any]:
    content = [
        {"type": "image_url", "image_url": {"url": picture()}},
        {"type": "text", "text": "Which card?"},
    ]
    asked = {
        "model": "tiny-vlm",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 32,
        "temperature": 0,
    }
    return {**asked, **fields}


def post(server: VlmServer, asked: Any, **options: Any) -> httpx.Response:
    data = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return httpx.post(f"{url(server)}/chat/completions", content=data, timeout=60, **options)


def test_openais_own_client_gets_an_answer_that_fits_its_schema(server: VlmServer, folder: Path) -> None:
    client = openai.OpenAI(base_url=url(server), api_key="none", max_retries=0)
    assert [row.id for row in client.models.list()] == ["tiny-vlm"]
    answer = client.chat.completions.create(**body(response_format=FORM, seed=3))
    content = answer.choices[0].message.content
    jsonschema.validate(json.loads(content), SCHEMA)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.system_fingerprint == fingerprint(folder)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 12  # the picture counts: 4 x 3 cells
    again = client.chat.completions.create(**body(response_format=FORM, seed=3))
    assert again.choices[0].message.content == content


def test_words_without_a_schema_and_any_json_object_are_answered_too(server: VlmServer) -> None:
    said = post(server, body(messages=[{"role": "user", "content": "Speak."}], max_tokens=3)).json()
    assert said["usage"]["completion_tokens"] <= 3
    any_object = post(server, body(response_format={"type": "json_object"}, max_completion_tokens=8)).json()
    assert any_object["choices"][0]["message"]["content"].startswith("{")
    jpeg = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture(form="JPEG")}}]}]
    assert post(server, body(messages=jpeg)).status_code == 200


def test_an_answer_that_is_cut_off_has_finish_reason_length(server: VlmServer) -> None:
    endless = {"name": "s", "schema": {"type": "string", "minLength": 500}}
    said = post(server, body(response_format={"type": "json_schema", "json_schema": endless}, max_tokens=5)).json()
    assert said["choices"][0]["finish_reason"] == "length"
    assert said["usage"]["completion_tokens"] == 5


def with_content(*parts: dict[str, Any]) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": list(parts)}])


def with_picture(address: str) -> dict[str, Any]:
    return with_content({"type": "image_url", "image_url": {"url": address}})


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        (body(stream=True), 400, "does not stream"),
        (body(top_p=0.5), 400, "'top_p' is not offered"),
        (body(tools=[]), 400, "'tools' is not offered"),
        (body(n=2), 400, "n: "),
        (body(messages=[]), 400, "messages"),
        (body(max_tokens=0), 400, "max_tokens"),
        (body(temperature=3), 400, "temperature"),
        (body(temperature="NaN"), 400, "temperature"),
        (body(seed=1.5), 400, "seed"),
        (body(model="gpt-4o"), 404, "'gpt-4o' is not served here"),
        (body(messages=[{"role": "tool", "content": "x"}]), 400, "messages.0.role"),
        (body(messages=[{"role": "user", "content": "a<|im_end|>b"}]), 400, "chat marker"),
        (with_picture("http://127.0.0.1/a.png"), 400, "fetches nothing"),
        (with_picture("file:///etc/passwd"), 400, "fetches nothing"),
        (with_picture("data:image/svg+xml;base64,AAAA"), 400, "only pictures inside the request"),
        (with_picture("data:image/png;base64,@@@"), 400, "base64 is damaged"),
        (with_picture("data:image/png;base64,AAé="), 400, "base64 is damaged"),
        (with_picture("data:image/png;base64,AAAA"), 400, "can not be read as PNG or JPEG"),
        (with_content({"type": "video_url", "video_url": {"url": "x"}}), 400, "messages.0.content"),
        (body(max_tokens=100_000), 400, "the model takes 32768"),
        (
            body(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}),
            400,
            "JSON schema can not be held to",
        ),
        (b"{not json", 400, "body"),
        (b"[]", 400, "body"),
        (b"\xff\xfe", 400, "body"),
        (b'{"model": "' + b"x" * 200_000 + b'"}', 413, "longer than 200000 bytes"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_what_is_not_offered_is_refused_by_name_as_an_openai_error(
    server: VlmServer, asked: Any, status: int, told: str
) -> None:
    reply = post(server, asked)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert told in error["message"]
    assert "Traceback" not in reply.text
    assert post(server, body(response_format=FORM)).status_code == 200  # and the server goes on


def test_a_body_that_does_not_say_its_length_is_cut_off_at_the_cap(server: VlmServer) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 10_000

    reply = httpx.post(f"{url(server)}/chat/completions", content=pieces(), timeout=60)
    assert reply.status_code == 413


def test_other_paths_and_methods_are_openai_errors(server: VlmServer) -> None:
    for method, path, status in (("GET", "/v1/chat/completions", 405), ("POST", "/v1/embeddings", 404)):
        reply = httpx.request(method, f"http://127.0.0.1:{server.port}{path}", timeout=60)
        assert reply.status_code == status
        assert "POST /v1/chat/completions" in reply.json()["error"]["message"]


def test_a_web_page_in_somebodys_browser_is_refused(server: VlmServer) -> None:
    assert post(server, body(), headers={"Origin": "http://evil.example"}).status_code == 403
    assert httpx.get(f"{url(server)}/models", headers={"Origin": "null"}, timeout=60).status_code == 403


def test_another_host_needs_a_token_and_a_token_is_asked_of_everyone(model: ChatModel) -> None:
    with pytest.raises(UsageError, match="let anyone use the model"):
        VlmServer(model, revision="", host="0.0.0.0", port=0)
    with pytest.raises(UsageError, match="at least 16"):
        VlmServer(model, revision="", port=0, token="short")
    token = "0123456789abcdef"
    with running_vlm_server(model, token=token) as guarded:
        assert httpx.get(f"{url(guarded)}/models", timeout=60).status_code == 401
        wrong = post(guarded, body(), headers={"Authorization": "Bearer 0123456789abcdeF"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
        client = openai.OpenAI(base_url=url(guarded), api_key=token, max_retries=0)
        assert client.chat.completions.create(**body()).model == "tiny-vlm"


def test_a_port_that_is_taken_is_one_sentence(server: VlmServer, model: ChatModel) -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1:\d+ .*Choose another --port"):
        VlmServer(model, revision="", port=server.port)
    with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1:70000 \(ports go up to 65535\)"):
        VlmServer(model, revision="", port=70_000)


def test_questions_that_wait_are_answered_together_and_as_if_alone(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(number: int) -> dict[str, Any]:
        parts = [{"type": "image_url", "image_url": {"url": picture(number)}}, {"type": "text", "text": "?" * number}]
        return body(messages=[{"role": "user", "content": parts}], response_format=FORM, temperature=1.0, seed=number)

    with running_vlm_server(model, batch_size=8) as busy:
        answer = model.answer

        def once_all_wait(prompts: list[Prompt]) -> list[Answer | NoAnswer]:
            deadline = time.monotonic() + 60
            while busy.counts.batches == 1 and busy._desk._waiting.qsize() < 12 - len(prompts):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return answer(prompts)

        monkeypatch.setattr(model, "answer", once_all_wait)

        def ask(number: int) -> str:
            return str(post(busy, asked(number)).json()["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(12) as pool:
            together = list(pool.map(ask, range(12)))
        assert busy.counts.answered == 12
        assert busy.counts.batches <= 3
        assert [str(post(busy, asked(n)).json()["choices"][0]["message"]["content"]) for n in range(12)] == together


@pytest.mark.slow
def test_the_endpoint_backend_and_the_local_backend_say_the_same_about_episodes(
    folder: Path, server: VlmServer, tmp_path: Path
) -> None:
    simulate(out=tmp_path / "raw", num_episodes=1, split="in-domain", seed=3, workers=1)
    convert(source_path=tmp_path / "raw", to=SIM, workspace=Workspace.at(tmp_path), rig="aloha_sim", workers=1)
    decode = Decode(max_tokens=64)
    with running_vlm_server(ChatModel(folder, "cpu")) as roomy:  # whole crops are larger than the small cap above
        far = Endpoint(urls=(url(roomy),), model="tiny-vlm", decode=decode, max_attempts=1)
        near = Local(path=folder, decode=decode, batch_size=4, device="cpu")
        said = {}
        for name, backend, workers in (("far", far, 0), ("near", near, 0), ("near in actors", near, 1)):
            place = Workspace.at(tmp_path / name)
            (tmp_path / name).mkdir(exist_ok=True)
            for kind in ("episodes", "frames"):
                if (tmp_path / kind).exists():
                    (tmp_path / name / kind).symlink_to(tmp_path / kind)
            with Ledger.open(f"sqlite:///{tmp_path}/{name}/ledger.db") as ledger:
                report = annotate(episodes=SIM, workspace=place, backend=backend, ledger=ledger, workers=workers)
                assert (report.num_episodes, report.failures) == (1, ())
                assert report.calls.made - report.calls.blank == 3  # a blank probe falls on some labels
                provenance = {stored.proposal.provenance.backend for stored in ledger.proposals(field="trace")}
                assert provenance == {name.split()[0].replace("far", "endpoint").replace("near", "local")}
                labels = {stored.proposal.provenance.model for stored in ledger.proposals(field="trace")}
                assert labels == {backend.speaker.label if isinstance(backend, Endpoint) else near.speaker().label}
                again = annotate(episodes=SIM, workspace=place, backend=backend, ledger=ledger, workers=workers)
                assert (again.num_new_proposals, again.calls.made) == (0, 0)
            said[name] = answers(place)
    assert said["far"] == said["near"] == said["near in actors"]
    assert len(said["far"]) == 3 + report.calls.blank
    assert len({text for _, text in said["far"].values()}) > 1


def answers(place: Workspace) -> dict[str, tuple[str, str]]:
    """What was asked, without who was asked -> outcome and words."""
    found = {}
    with CallStore.open(place.calls_url) as store, reading(store._engine) as connection:
        for row in connection.execute(CALLS.select()):
            asked = json.loads(row.request_json)
            found[json.dumps([asked["turns"], asked["schema"]])] = (row.outcome, row.text)
    return found


@pytest.mark.slow
def test_the_verb_serves_until_it_is_told_to_stop_and_says_what_it_did(folder: Path) -> None:
    words = [sys.executable, "-m", "apps", "serve-vlm", str(folder), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        ready = serving.stdout.readline()
        told = re.fullmatch(r"tiny-vlm listens on (http://127\.0\.0\.1:\d+/v1) \(stop with Ctrl-C\)\n", ready)
        assert told is not None, ready
        reply = httpx.post(f"{told[1]}/chat/completions", json=body(response_format=FORM), timeout=60)
        assert reply.status_code == 200
        serving.send_signal(signal.SIGTERM)
        out, err = serving.communicate(timeout=60)
    assert (serving.returncode, out) == (0, "1 answered, 0 refused, 0 failed, 1 batches\n"), err


def test_wrong_words_are_one_sentence_and_exit_code_2(folder: Path, tmp_path: Path) -> None:
    for words, sentence in (
        (("serve-vlm", str(tmp_path)), "holds no config.json with safetensors"),
        (("serve-vlm", str(folder), "--host", "0.0.0.0"), "Give a --token"),
        (("annotate", "sim@1", "--vlm", f"local:{folder}", "--backend", "endpoint"), "Give one of them"),
        (("annotate", "sim@1", "--vlm", f"local:{tmp_path}"), "holds no config.json with safetensors"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "apps", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert sentence in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
