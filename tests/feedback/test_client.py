"""The client against a server that drops, stalls, truncates, floods and lies: bounded time, nothing paid twice, no key told."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from feedback.fault_server import DELAYS, FAULTS, answer, http, serving

from amenable.errors import ConfigError, FeedbackError
from amenable.feedback.client import ChatClient, Endpoint, _retry_after

KEY = "sk-very-secret-9876"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def client(url: str, cache: Path, **changes: Any) -> ChatClient:
    settings = {"deadline": 20.0, "pause": 0.1, "tries": 4, **changes}
    return ChatClient(Endpoint(url, "m", cache, **settings))


def said(request: dict[str, Any]) -> str:
    return str(request["messages"][0]["content"])


def test_answers_come_in_order_once_each_and_are_kept(tmp_path: Path) -> None:
    with serving(lambda n, request, _: answer(said(request).upper())) as server:
        asked = client(server.url, tmp_path, parallel=3)
        prompts = [f"p{i}" for i in range(20)] + ["p0"]
        assert asked.ask(prompts) == [prompt.upper() for prompt in prompts]
        assert len(server.requests) == asked.spent.requests == 20  # the same question twice is one request
        assert asked.spent.tokens == 140
        assert 1 <= server.most_at_once <= 3
        assert all(f"Bearer {KEY}" in head for head in server.heads)
    again = client(server.url, tmp_path)  # the server is gone: everything is in the cache
    assert again.ask(prompts) == [prompt.upper() for prompt in prompts]
    assert (again.spent.requests, again.spent.cached) == (0, 20)


def test_other_parameters_are_another_question(tmp_path: Path) -> None:
    with serving(lambda n, request, _: answer(f"{n}")) as server:
        for changes in ({}, {"temperature": 0.5}, {"max_tokens": 3}, {"seed": 1}, {}):
            client(server.url, tmp_path, **changes).ask(["p"])
        assert len(server.requests) == 4
        sent = server.requests[1]
        assert (sent["temperature"], sent["max_tokens"], sent["model"]) == (0.5, 256, "m")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_tried_again_and_the_answer_comes(fault: str, tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        return FAULTS[fault](connection) if number == 0 else answer("right")

    with serving(treat) as server:
        assert client(server.url, tmp_path).ask(["p"]) == ["right"]
        assert len(server.requests) == 2


def test_what_never_comes_is_missing_with_its_reason_and_not_kept(tmp_path: Path) -> None:
    with serving(lambda n, request, _: http(200, "{}") if said(request) == "bad" else answer("ok")) as server:
        asked = client(server.url, tmp_path, tries=2)
        assert asked.ask(["good", "bad"]) == ["ok", None]
        assert asked.spent.missing == 1
        assert asked.spent.reasons == {"an answer that is no chat completion": 1}
        assert len(list(tmp_path.rglob("*.json"))) == 1


@pytest.mark.parametrize("fault", DELAYS)
def test_a_server_that_hangs_or_drips_meets_the_deadline(fault: str, tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        return DELAYS[fault](connection) if said(request) == "slow" else answer("ok")

    began = time.monotonic()
    with serving(treat) as server:
        asked = client(server.url, tmp_path, deadline=1.0)
        assert asked.ask(["slow", "fast"]) == [None, "ok"]
    assert time.monotonic() - began < 5
    assert any("no answer within 1 s" in reason for reason in asked.spent.reasons)


def test_retry_after_is_honoured_and_bounded_by_the_deadline(tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes:
        return http(429, Retry_After="0.7") if number == 0 else answer("ok")

    with serving(treat) as server:
        began = time.monotonic()
        assert client(server.url, tmp_path).ask(["p"]) == ["ok"]
        assert 0.7 <= time.monotonic() - began < 3
    with serving(lambda *_: http(429, Retry_After="3600")) as server:
        began = time.monotonic()
        assert client(server.url, tmp_path / "b", deadline=0.5).ask(["p"]) == [None]
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), ("-1", 0.0), ("soon", None), (None, None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("nan", 0.0)],
)
def test_retry_after_as_servers_write_it(value: str | None, seconds: float | None) -> None:
    assert _retry_after(value) == seconds


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301, 307, 204])
def test_a_refusal_is_not_tried_again_and_tells_no_key(status: int, tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes:
        return http(status, f"bad key {KEY}" if status != 204 else "", Location="http://127.0.0.1:9/elsewhere")

    with serving(treat) as server:
        with pytest.raises(FeedbackError, match=f"status {status}") as error:
            client(server.url, tmp_path).ask(["p"])
        assert len(server.requests) == 1  # and no redirect was followed
    assert KEY not in str(error.value)
    assert "OPENAI_API_KEY" in str(error.value)


def test_an_error_of_one_does_not_lose_what_the_others_paid_for(tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes:
        if said(request) == "refused":
            return http(401)
        time.sleep(0.4)
        return answer("paid")

    with serving(treat) as server:
        asked = client(server.url, tmp_path, parallel=4)
        with pytest.raises(FeedbackError, match="401"):
            asked.ask(["a", "b", "refused", "c", "d", "e"])
        kept = [json.loads(path.read_text())["answer"] for path in tmp_path.rglob("*.json")]
        assert kept == ["paid"] * 3  # a, b and c were on their way; d and e were not asked


def test_a_budget_is_never_exceeded(tmp_path: Path) -> None:
    with serving(lambda n, request, _: answer("x")) as server:
        asked = client(server.url, tmp_path, requests=5)
        with pytest.raises(FeedbackError, match="budget for m is spent: 5 requests"):
            asked.ask([f"p{i}" for i in range(9)])
        assert len(server.requests) == 5
        assert client(server.url, tmp_path, requests=4).ask([f"p{i}" for i in range(9)]) == ["x"] * 9


def test_a_server_that_is_down_is_left_alone_and_then_given_up(tmp_path: Path) -> None:
    with serving(lambda *_: http(503)) as server:
        asked = client(server.url, tmp_path, breaker=4, tries=50, deadline=60.0)
        began = time.monotonic()
        with pytest.raises(FeedbackError, match="in a row, last with: status 503"):
            asked.ask([f"p{i}" for i in range(40)])
        assert time.monotonic() - began < 20
        assert len(server.requests) < 40


def test_a_refusal_after_failures_is_told_at_once_to_everybody_who_waits(tmp_path: Path) -> None:
    with serving(lambda n, *_: http(503) if n < 4 else http(401)) as server:
        asked = client(server.url, tmp_path, breaker=4, tries=50, deadline=30.0)
        began = time.monotonic()
        with pytest.raises(FeedbackError, match="status 401"):
            asked.ask([f"p{i}" for i in range(40)])
        assert time.monotonic() - began < 10


def test_it_works_where_a_loop_runs_already(tmp_path: Path) -> None:
    async def notebook(url: str) -> list[str | None]:
        return client(url, tmp_path).ask(["p"])

    with serving(lambda *_: answer("ok")) as server:
        assert asyncio.run(notebook(server.url)) == ["ok"]


def test_nobody_listening_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(FeedbackError, match="ConnectError"):
        client("http://127.0.0.1:9/v1", tmp_path, breaker=2, tries=20).ask(["p"])


@pytest.mark.parametrize(("url", "model"), [("localhost:80", "m"), ("file:///etc/passwd", "m"), ("http://h/v1", "")])
def test_an_endpoint_that_cannot_be(url: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Endpoint(url, model, tmp_path)
