"""The server, spoken to over HTTP by OpenAI's own client, by ours, and by whoever sends something else."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from tiny import tiny_policy, tiny_seq2seq

from amenable.errors import ConfigError
from amenable.feedback.client import ChatClient, Endpoint
from amenable.policy.causal_lm import CausalLM
from amenable.policy.continuous import Batch
from amenable.records import Decoding, Samples
from amenable.serving import job
from amenable.serving.server import Server

TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' and not loop.first %}{{ raise_exception('late') }}"
    "{% endif %}[{{ message.role }}]{{ message.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def made(template: str = TEMPLATE) -> CausalLM:
    policy = tiny_policy()
    policy.tokenizer.chat_template = template or None
    return policy


@contextmanager
def serving(policy: CausalLM, **settings: Any) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), policy, name="tiny", **settings) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


def client_of(server: Server, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key=key, max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def policy() -> CausalLM:
    return made()


@pytest.fixture(scope="module")
def server(policy: CausalLM) -> Iterator[Server]:
    with serving(policy) as running:
        yield running


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return client_of(server)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that take 50 ms."""
    real = Batch.step

    def step(self: Batch, joining: Any = ()) -> None:
        time.sleep(0.05)
        real(self, joining)

    monkeypatch.setattr(Batch, "step", step)
    monkeypatch.setattr(job, "LOOK", 0.05)


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def raw(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers, and the JSON that came."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.headers, json.loads(response.read())


# --- the law


def test_the_model_is_listed(server: Server, client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "tiny"
    assert client.models.retrieve("tiny").owned_by == "amenable"
    assert raw(server, "GET", "/health")[::2] == (200, {"status": "ok", "model": "tiny", "running": 0, "waiting": 0})


LAWS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.6, "top_p": 0.8},
    {"extra_body": {"top_k": 5}},
]


@pytest.mark.parametrize("asked", LAWS)
def test_completions_are_the_policys_samples(policy: CausalLM, client: openai.OpenAI, asked: dict[str, Any]) -> None:
    prompts = ["hello", "a much longer prompt than that"]
    got = client.completions.create(model="tiny", prompt=prompts, n=3, max_tokens=40, seed=5, logprobs=2, **asked)
    law = {name: value for name, value in asked.items() if name != "extra_body"} | asked.get("extra_body", {})
    samples = policy.sample(prompts, n=3, decoding=Decoding(max_tokens=40, **law), seed=5)
    assert [choice.text for choice in got.choices] == samples.texts
    ends = {"eos": "stop", "length": "length"}
    assert [choice.finish_reason for choice in got.choices] == [ends[ended] for ended in samples.ended]
    assert got.usage is not None
    assert got.usage.completion_tokens == int(samples.lengths.sum())
    assert got.usage.prompt_tokens == sum(len(policy.encode(prompt)) for prompt in prompts)
    own = policy.log_prob(samples)  # the policy's own law, whatever was sampled from
    for index, choice in enumerate(got.choices):
        assert choice.logprobs is not None
        length = int(samples.lengths[index])
        assert choice.logprobs.token_logprobs == pytest.approx(own[index, :length].tolist(), abs=1e-3)
        for name, value, top in zip(
            choice.logprobs.tokens or [], choice.logprobs.token_logprobs or [], choice.logprobs.top_logprobs or [],
            strict=True,
        ):  # fmt: skip
            assert top[name] == value
            assert 2 <= len(top) <= 3


def test_the_law_is_the_one_that_was_asked_for(policy: CausalLM, client: openai.OpenAI) -> None:
    """1,024 tokens at temperature 0.5 in the nucleus of 0.6, against the model's own logits: chi-squared."""
    got = client.completions.create(
        model="tiny", prompt=["q"] * 8, n=128, max_tokens=1, temperature=0.5, top_p=0.6, logprobs=0, seed=1
    )
    drawn = [choice.logprobs.tokens[0] for choice in got.choices if choice.logprobs and choice.logprobs.tokens]
    with torch.no_grad():
        law = (policy.model(torch.tensor([policy.encode("q")])).logits[0, -1] / 0.5).softmax(-1)
    values, names = law.sort(descending=True)
    inside = int((values.cumsum(-1) < 0.6).sum()) + 1  # the token that crosses it stays in
    expected = (1024 * values[:inside] / values[:inside].sum()).tolist()
    from amenable.serving.text import TokenNames

    counts = [drawn.count(TokenNames(policy.tokenizer).text(int(name))) for name in names[:inside]]
    assert sum(counts) == len(drawn) == 1024  # nothing from outside the nucleus
    cells = [(count, mean) for count, mean in zip(counts, expected, strict=True) if mean >= 5]
    assert len(cells) >= 10
    statistic = sum((count - mean) ** 2 / mean for count, mean in cells)
    assert statistic < len(cells) + 4 * (2 * len(cells)) ** 0.5  # four standard deviations


def test_a_chat_goes_through_the_models_template(policy: CausalLM, client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi é"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "go on"},
    ]
    got = client.chat.completions.create(
        model="tiny", messages=messages, max_completion_tokens=30, n=2, seed=3, logprobs=True, top_logprobs=4
    )
    text = "[system]be brief[user]hi é[assistant]yes[user]go on[assistant]"
    samples = policy.sample([text], n=2, decoding=Decoding(max_tokens=30), seed=3)
    assert [choice.message.content for choice in got.choices] == samples.texts
    own = policy.log_prob(samples)
    for index, choice in enumerate(got.choices):
        assert choice.message.role == "assistant"
        assert choice.logprobs is not None
        content = choice.logprobs.content or []
        assert [token.logprob for token in content] == pytest.approx(
            own[index, : int(samples.lengths[index])].tolist(), abs=1e-3
        )
        assert all(len(token.top_logprobs) == 4 for token in content)
        assert all(token.top_logprobs[0].logprob >= token.logprob - 1e-6 for token in content)
        spelled = bytes(byte for token in content for byte in token.bytes or [])
        assert spelled.removesuffix(b"<eos>").decode(errors="replace") == choice.message.content
    plain = client.chat.completions.create(model="tiny", messages=messages, max_tokens=3)
    assert plain.choices[0].logprobs is None


def test_a_given_text_is_scored(policy: CausalLM, client: openai.OpenAI) -> None:
    texts = ["hello there", "x", "another é text"]
    for prompts in (texts, [policy.encode(text) for text in texts]):
        got = client.completions.create(
            model="tiny", prompt=prompts, echo=True, logprobs=1, max_tokens=0, extra_body={"stop": None}
        )
        assert [choice.text for choice in got.choices] == texts
        assert got.usage is not None
        assert got.usage.completion_tokens == 0
        for text, choice in zip(texts, got.choices, strict=True):
            ids, found = policy.encode(text), choice.logprobs
            assert found is not None
            assert found.token_logprobs is not None
            assert found.token_logprobs[0] is None
            assert len(found.tokens or []) == len(ids)
            if len(ids) > 1:
                rest = Samples(
                    [ids[:1]], torch.tensor([ids[1:]]), torch.tensor([len(ids) - 1]), torch.zeros(1, len(ids) - 1),
                    [""], ["length"],
                )  # fmt: skip
                assert found.token_logprobs[1:] == pytest.approx(policy.log_prob(rest)[0].tolist(), abs=1e-3)
            assert choice.finish_reason == "length"
            assert found.text_offset == [
                len(policy.tokenizer.decode(ids[:i]).rstrip("\ufffd")) for i in range(len(ids))
            ]


def test_an_echo_stands_before_what_is_drawn(policy: CausalLM, client: openai.OpenAI) -> None:
    settings: Any = {"model": "tiny", "prompt": "abc", "max_tokens": 5, "seed": 2, "n": 2}
    echoed = client.completions.create(**settings, echo=True, logprobs=0)
    drawn = client.completions.create(**settings, logprobs=0)
    plain = client.completions.create(**settings, echo=True)
    for with_echo, without, text in zip(echoed.choices, drawn.choices, plain.choices, strict=True):
        assert with_echo.text == text.text == "abc" + without.text
        assert with_echo.logprobs is not None
        assert without.logprobs is not None
        assert (with_echo.logprobs.tokens or [])[3:] == without.logprobs.tokens
        assert (with_echo.logprobs.text_offset or [])[3:] == [3 + at for at in without.logprobs.text_offset or []]
        assert text.logprobs is None


def test_stop_strings_end_a_text(policy: CausalLM, client: openai.OpenAI) -> None:
    settings: Any = {"model": "tiny", "prompt": "s", "n": 20, "max_tokens": 50, "seed": 2}
    plain = client.completions.create(**settings)
    stop = next(text[3] for text in (choice.text for choice in plain.choices) if len(text) > 9 and text[3] != "\ufffd")
    stopped = client.completions.create(**settings, stop=[stop, "never there"], logprobs=0)
    samples = policy.sample(["s"], n=20, decoding=Decoding(max_tokens=50, stop=(stop, "never there")), seed=2)
    assert [choice.text for choice in stopped.choices] == samples.texts
    assert "stop" in samples.ended
    for choice, ended, length in zip(stopped.choices, samples.ended, samples.lengths.tolist(), strict=True):
        assert choice.finish_reason == ("length" if ended == "length" else "stop")
        assert choice.logprobs is not None
        assert len(choice.logprobs.tokens or []) == length  # with the token that completed it


def test_the_same_seed_is_the_same_text_and_no_seed_is_another(client: openai.OpenAI) -> None:
    def text(**settings: Any) -> str:
        return client.completions.create(model="tiny", prompt="a", max_tokens=40, **settings).choices[0].text

    assert text(seed=7) == text(seed=7) != text(seed=8)
    assert text() != text()


# --- streams


@pytest.mark.parametrize("stop", [None, ["5", "\x15"]])
def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, stop: Any) -> None:
    settings: Any = {
        "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 30, "n": 3, "seed": 4,
        "logprobs": True, "top_logprobs": 2, "stop": stop,
    }  # fmt: skip
    whole = client.chat.completions.create(**settings)
    chunks = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    for index, choice in enumerate(whole.choices):
        mine = [part for chunk in chunks for part in chunk.choices if part.index == index]
        assert mine[0].delta.role == "assistant"
        assert "".join(part.delta.content or "" for part in mine) == choice.message.content
        assert [part.finish_reason for part in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        tokens = [token for part in mine if part.logprobs for token in part.logprobs.content or []]
        assert choice.logprobs is not None
        assert [token.token for token in tokens] == [token.token for token in choice.logprobs.content or []]
        assert len(mine) == 1 + len(tokens)  # an event a token, and the opening


def test_a_completion_streams_too_and_begins_with_its_echo(client: openai.OpenAI) -> None:
    settings: Any = {
        "model": "tiny",
        "prompt": ["one", "two"],
        "max_tokens": 20,
        "seed": 4,
        "echo": True,
        "logprobs": 1,
    }
    whole = client.completions.create(**settings)
    chunks = list(client.completions.create(**settings, stream=True))
    for index, choice in enumerate(whole.choices):
        mine = [part for chunk in chunks for part in chunk.choices if part.index == index]
        assert mine[0].text == ["one", "two"][index]
        assert "".join(part.text for part in mine) == choice.text
        assert choice.logprobs is not None
        offsets = [at for part in mine if part.logprobs for at in part.logprobs.text_offset or []]
        assert offsets == choice.logprobs.text_offset
    assert all(chunk.usage is None for chunk in chunks)


def test_tokens_are_sent_as_they_come(slow: None, server: Server, client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="tiny", prompt="q", max_tokens=40, seed=1, stream=True, logprobs=0, temperature=2
    )
    began, times = time.monotonic(), []
    for _ in stream:
        times.append(time.monotonic() - began)
    assert len(times) >= 10
    assert times[len(times) // 2] < 0.8 * times[-1]


def test_an_old_client_gets_its_stream_without_chunks(server: Server) -> None:
    body = json.dumps({"model": "tiny", "prompt": "q", "max_tokens": 5, "stream": True}).encode()
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    head, _, text = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert text.startswith(b'data: {"id":"cmpl-')
    assert text.endswith(b"data: [DONE]\n\n")


# --- company


def test_eight_clients_at_once_get_what_each_would_get_alone(policy: CausalLM, server: Server) -> None:
    asked: list[dict[str, Any]] = [
        {"prompt": "p" * (1 + 7 * index), "seed": index, "max_tokens": 20 + index}
        | {"temperature": (1.0, 0.7, 0.0)[index % 3], "top_p": (1.0, 0.9)[index % 2]}
        for index in range(24)
    ]
    with client_of(server) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: client.completions.create(model="tiny", **each), asked))
    for each, answer in zip(asked, answers, strict=True):
        law = Decoding(each["max_tokens"], each["temperature"], top_p=each["top_p"])
        assert answer.choices[0].text == policy.sample([each["prompt"]], decoding=law, seed=each["seed"]).texts[0]


def test_requests_are_computed_together(slow: None, server: Server) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        body = {"model": "tiny", "prompt": "q", "max_tokens": 10, "temperature": 2, "seed": 1}
        assert {
            status for status, _, _ in pool.map(lambda _: raw(server, "POST", "/v1/completions", body), range(8))
        } == {200}
    assert time.monotonic() - began < 8 * 10 * 0.05 / 1.5


def test_with_max_batch_1_company_changes_no_bit(policy: CausalLM) -> None:
    body = {"model": "tiny", "prompt": "hello", "max_tokens": 20, "n": 2, "seed": 9, "logprobs": 5}
    others = [{"model": "tiny", "prompt": "x" * 9 * i, "max_tokens": 30, "seed": i} for i in range(1, 6)]
    with serving(policy, requests=1) as server, ThreadPoolExecutor(8) as pool:
        alone = raw(server, "POST", "/v1/completions", body)[2]["choices"]
        answers = list(pool.map(lambda asked: raw(server, "POST", "/v1/completions", asked), [*others, body, body]))
    assert all(status == 200 for status, _, _ in answers)
    assert answers[-1][2]["choices"] == answers[-2][2]["choices"] == alone  # every digit of every log-probability


def test_our_own_client_speaks_to_it(policy: CausalLM, server: Server, tmp_path: Path) -> None:
    endpoint = Endpoint(server.url, "tiny", tmp_path, max_tokens=12, temperature=0.8, seed=3)
    asked = ChatClient(endpoint)
    prompts = [f"question {index}" for index in range(8)]
    samples = [
        policy.sample([policy.chat(prompt)], decoding=Decoding(max_tokens=12, temperature=0.8), seed=3)
        for prompt in prompts
    ]
    assert asked.ask(prompts) == [each.texts[0] for each in samples]
    tokens = sum(int(each.lengths[0]) + len(each.context_ids[0]) for each in samples)
    assert asked.spent.tokens == tokens
    assert asked.spent.requests == 8


# --- refusals


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        (b"{", 400, None, "not JSON"),
        (b"[" * 100_000, 400, None, "not JSON"),
        (b"\xff\xfe", 400, None, "not JSON"),
        (b"[]", 400, None, "not a JSON object"),
        ({"prompt": "x"}, 400, "model", "no model is named"),
        ({"model": "gpt", "prompt": "x"}, 404, "model", "ask for 'tiny'"),
        ({"model": "tiny", "prompt": "x" * 300}, 400, "prompt", "nothing is cut silently"),
        ({"model": "tiny", "prompt": "x", "max_tokens": 256}, 400, "prompt", "exceed the context of 256"),
        ({"model": "tiny", "prompt": [5, 999]}, 400, "prompt", "token id 999 in prompt 0"),
        ({"model": "tiny", "prompt": [-1]}, 400, "prompt", "token id -1"),
        ({"model": "tiny", "prompt": [10**30]}, 400, "prompt", "vocabulary"),
        ({"model": "tiny", "prompt": "x", "temperature": "hot"}, 400, "temperature", "give a number"),
    ],
)
def test_what_cannot_be_is_refused_and_the_connection_goes_on(
    server: Server, body: Any, status: int, param: str | None, says: str
) -> None:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    connection.request("POST", "/v1/completions", body if isinstance(body, bytes) else json.dumps(body).encode())
    response = connection.getresponse()
    told = json.loads(response.read())["error"]
    assert (response.status, told["param"]) == (status, param)
    assert says in told["message"]
    connection.request(
        "POST", "/v1/completions", json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 2}).encode()
    )
    assert connection.getresponse().status == 200


def test_openais_client_knows_the_errors(policy: CausalLM, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 300}])
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    assert unknown.value.code == "model_not_found"
    turns: Any = [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]
    with pytest.raises(openai.BadRequestError, match=r"does not take these messages: late"):
        client.chat.completions.create(model="tiny", messages=turns)
    with pytest.raises(openai.BadRequestError, match="another law"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}], frequency_penalty=1)


def test_a_chat_without_a_limit_fills_what_is_left(client: openai.OpenAI, policy: CausalLM) -> None:
    got = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "x" * 230}], seed=2, temperature=0
    )
    assert got.usage is not None
    assert got.usage.total_tokens <= 256
    assert got.choices[0].finish_reason == "stop" or got.usage.total_tokens == 256


def test_paths_methods_and_sizes(server: Server) -> None:
    assert raw(server, "GET", "/v1/nothing")[0] == 404
    assert raw(server, "POST", "/v1/embeddings", {})[2]["error"]["code"] == "unknown_url"
    assert raw(server, "GET", "/v1/completions")[0] == 405
    assert raw(server, "POST", "/v1/models", {})[0] == 405
    assert raw(server, "PUT", "/v1/models", {})[0] == 501
    assert raw(server, "GET", "/v1/models/other")[0] == 404
    assert raw(server, "POST", "/v1/completions", b"{}", Content_Length=str(1 << 40))[0] == 413
    assert raw(server, "POST", "/v1/completions", b"{}", Content_Length="ten")[0] == 411
    assert raw(server, "POST", "/v1/completions", b"0\r\n\r\n", Transfer_Encoding="chunked")[0] == 411
    status, _, told = raw(server, "POST", "/v1/completions", {}, Origin="http://evil.example")
    assert (status, told["error"]["type"]) == (403, "permission_error")


def test_who_does_not_know_the_key_is_not_answered(policy: CausalLM) -> None:
    with serving(policy, key="a long secret") as server:
        assert raw(server, "GET", "/health")[0] == 200
        for key in ("", "another", "a long secre"):
            with pytest.raises(openai.AuthenticationError) as error:
                client_of(server, key or "x").models.list()
            assert error.value.code == "invalid_api_key"
            assert "a long secret" not in str(error.value)
        assert raw(server, "POST", "/v1/completions", {"model": "tiny", "prompt": "x"})[0] == 401
        assert client_of(server, "a long secret").models.list().data[0].id == "tiny"


def test_what_cannot_be_served_safely_is_not(policy: CausalLM) -> None:
    with pytest.raises(ConfigError, match="AMENABLE_SERVE_KEY"):
        Server(("0.0.0.0", 0), policy)
    with pytest.raises(ConfigError, match="only causal ones"):
        Server(("127.0.0.1", 0), tiny_seq2seq())
    with pytest.raises(ConfigError, match="--rows 0"):
        Server(("127.0.0.1", 0), policy, rows=0)


def test_without_a_template_one_message_is_the_text() -> None:
    policy = made("")
    with serving(policy) as server:
        client = client_of(server)
        got = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=9, seed=1
        )
        assert got.choices[0].message.content == policy.sample(["hi"], decoding=Decoding(max_tokens=9), seed=1).texts[0]
        with pytest.raises(openai.BadRequestError, match="no chat template"):
            client.chat.completions.create(
                model="tiny", messages=[{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
            )


# --- trouble


LONG = {"model": "tiny", "prompt": "q", "max_tokens": 200, "temperature": 2, "seed": 1}


def test_a_full_queue_says_when_to_come_back(slow: None, policy: CausalLM) -> None:
    with serving(policy, requests=1, waiting=2) as server, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(raw, server, "POST", "/v1/completions", LONG | {"max_tokens": 24}) for _ in range(3)]
        wait_for(lambda: server.worker.running and server.worker.waiting == 2)
        status, headers, told = raw(server, "POST", "/v1/completions", LONG)
        assert (status, told["error"]["code"], told["error"]["type"]) == (429, "queue_full", "rate_limit_error")
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert [each.result()[0] for each in waiting] == [200, 200, 200]
        assert raw(server, "POST", "/v1/completions", LONG | {"max_tokens": 2})[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_is_not_computed_for(slow: None, policy: CausalLM, stream: bool) -> None:
    body = json.dumps(LONG | {"stream": stream}).encode()
    with serving(policy) as server:
        with socket.create_connection(server.server_address[:2]) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            wait_for(lambda: server.worker.running)
        began = time.monotonic()
        wait_for(lambda: not server.worker.running)
        assert time.monotonic() - began < 5  # of the 10 s that 200 tokens take


def test_a_model_that_fails_fails_the_request_and_not_the_server(
    policy: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Batch.step, [0]

    def step(self: Batch, joining: Any = ()) -> None:
        calls[0] += 1
        if calls[0] in (3, 12):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        real(self, joining)

    monkeypatch.setattr(Batch, "step", step)
    body = LONG | {"max_tokens": 8}
    with serving(policy) as server:
        status, _, told = raw(server, "POST", "/v1/completions", body)
        assert (status, told["error"]["type"]) == (500, "server_error")
        assert "can't allocate memory" in told["error"]["message"]
        status, _, told = raw(server, "POST", "/v1/completions", body)
        assert status == 200
        assert told["choices"][0]["text"] == policy.sample(
            ["q"], decoding=Decoding(max_tokens=8, temperature=2), seed=1
        ).texts[0]  # fmt: skip
        calls[0] = 9  # the third token from now: a stream has begun by then
        stream = client_of(server).completions.create(**body, stream=True, logprobs=0)
        with pytest.raises(openai.APIError, match="can't allocate memory"):
            list(stream)


def test_a_server_that_stops_tells_who_waits(slow: None, policy: CausalLM) -> None:
    with ThreadPoolExecutor(2) as pool:
        with serving(policy, requests=1) as server:
            waiting = [pool.submit(raw, server, "POST", "/v1/completions", LONG) for _ in range(2)]
            wait_for(lambda: server.worker.running and server.worker.waiting)
        for each in waiting:
            status, _, told = each.result()
            assert (status, told["error"]["code"]) == (503, "stopping")
        assert not server.worker.working
