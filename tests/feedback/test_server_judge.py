"""A judge behind a real server that lists tokens, or none, or breaks: what it means, what is missing, what is paid twice."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from feedback.fault_server import DELAYS, FAULTS, answer, http, serving

from amenable.errors import FeedbackError
from amenable.feedback.client import ChatClient, Endpoint, Refused
from amenable.feedback.completion import Reply, read_completion
from amenable.feedback.judging import judged
from amenable.feedback.questions import Question
from amenable.feedback.server_judge import LEAST, ServerJudge, ServerRater
from amenable.policy import zoo
from amenable.policy.loading import load_policy
from amenable.serving.server import Server

Places = Sequence[tuple[str, dict[str, float]]]
Treat = Callable[[int, dict[str, Any], socket.socket], bytes | None]


def client(url: str, cache: Path, **changes: Any) -> ChatClient:
    return ChatClient(Endpoint(url, "m", cache, **{"deadline": 20.0, "pause": 0.1, "tries": 4, **changes}))


def listed(text: str, places: Places, *, tokens: int = 7) -> bytes:
    """A chat completion with log-probabilities: at each place the token written and the probabilities listed."""
    content = [
        {"token": token, "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top.items()]}
        for token, top in places
    ]
    choice = {"message": {"content": text}, "logprobs": {"content": content}}
    return http(200, json.dumps({"choices": [choice], "usage": {"total_tokens": tokens}}))


def said(request: dict[str, Any]) -> str:
    return str(request["messages"][-1]["content"])


def is_probe(request: dict[str, Any]) -> bool:
    return "Reply with the number 1 and nothing else" in said(request)


def longer(request: dict[str, Any], bonus: float = 0.0) -> float:
    """P("1") of a judge that likes length, and a position."""
    shown = said(request).split("Answer 1:\n")[1]
    one, two = shown.split("\n\nAnswer 2:\n")
    two = two.split("\n\nWhich answer")[0]
    return 1 / (1 + math.exp(-(len(one) - len(two)) - bonus))


def by_tokens(number: int, request: dict[str, Any], connection: socket.socket) -> bytes:
    if is_probe(request):
        return listed("1", [("1", {"1": 0.9})])
    p = longer(request, bonus=0.4)
    return listed("1" if p > 0.5 else "2", [("1", {"1": 0.6 * p, " 1": 0.2 * p, "2": 0.8 * (1 - p), "It": 0.1})])


def test_log_probabilities_are_summed_over_spellings_and_both_orders_reconciled(tmp_path: Path) -> None:
    with serving(by_tokens) as server:
        judge = ServerJudge(client(server.url, tmp_path))
        [j] = judged(judge, ["p"], ["aaa"], ["b"])
        assert j.forward.p_first == pytest.approx(1 / (1 + math.exp(-2.4)))
        assert j.p_first == pytest.approx((1 / (1 + math.exp(-2.4)) + 1 / (1 + math.exp(-1.6))) / 2)
        assert j.outside == pytest.approx(0.2)
        sent = server.requests[-1]
        assert [m["role"] for m in sent["messages"]] == ["system", "user"]  # type: ignore[attr-defined]
        assert (sent["logprobs"], sent["top_logprobs"], sent["temperature"]) == (True, 20, 0.0)
        assert len(server.requests) == 3  # one small question about what the server can do, and two orders


@pytest.mark.parametrize(
    ("places", "p_first", "outside"),
    [
        ([("1", {"1": 0.5, "2": 0.3})], 0.625, 0.2),
        ([("\n", {"\n": 0.9}), ("2", {"1": 0.2, "2": 0.7})], 2 / 9, 0.1),  # the first place that is an answer
        ([("I", {"I": 0.5, "1": 0.3, "2": 0.1})], 0.75, 0.6),
        ([("I", {"I": 0.9, "1": 0.01}), ("2", {"2": 1.0})], 0.0, 0.0),
        (
            [("I", {"I": 0.8, "1": 0.1}), ("2", {"2": 0.7, "1": 0.1})],
            0.125,
            0.2,
        ),  # of those up to the answer, the surest
        ([("2", {"2": 0.6, "1": 0.3}), ("1", {"1": 1.0})], 1 / 3, 0.1),  # "2, not 1": what follows is not the answer
    ],
)
def test_the_place_that_answers(places: Places, p_first: float, outside: float, tmp_path: Path) -> None:
    with serving(lambda n, request, _: listed("words", places)) as server:
        [found] = ServerJudge(client(server.url, tmp_path)).ask(["p"], ["a"], ["b"])
    assert found.p_first == pytest.approx(p_first)
    assert found.outside == pytest.approx(outside)


@pytest.mark.parametrize(
    ("text", "p_first"),
    [
        ("1", 1.0), (" 2.", 0.0), ("Answer 2 is better than Answer 1", 0.0), ("**1**", 1.0), ("(2)", 0.0), ("Tie", 0.5),
        ("It is a tie: 1 and 2 are alike", 0.5), ("12", None), ("1.5", None), ("neither", None), ("", None),
        ("none of the 21 ties", None), ("v2 wins", None),
    ],
)  # fmt: skip
def test_without_log_probabilities_the_text_is_read(text: str, p_first: float | None, tmp_path: Path) -> None:
    with serving(lambda n, request, _: answer(text)) as server:
        [found] = ServerJudge(client(server.url, tmp_path)).ask(["p"], ["a"], ["b"])
        assert "logprobs" not in server.requests[-1]  # the server gives none: they are asked for once
    assert found.p_first == p_first
    assert found.outside == (1.0 if p_first is None else 0.0)
    assert ("neither 1 nor 2" in found.missing) == (p_first is None)


@pytest.mark.parametrize(
    "logprobs", ["null", "{}", '{"content": null}', '{"content": [{"token": "1"}]}', "[1]", '"no"',
                 '{"content": [{"token": "1", "top_logprobs": [{"token": "1", "logprob": "high"}]}]}'],
)  # fmt: skip
def test_log_probabilities_of_another_shape_are_none(logprobs: str, tmp_path: Path) -> None:
    body = json.dumps({"choices": [{"message": {"content": "2"}, "logprobs": json.loads(logprobs)}]})
    assert read_completion(body.encode()) == (Reply("2"), 0)
    with serving(lambda *_: http(200, body)) as server:
        [found] = ServerJudge(client(server.url, tmp_path)).ask(["p"], ["a"], ["b"])
    assert (found.p_first, found.outside) == (0.0, 0.0)


@pytest.mark.parametrize(("most", "system"), [(5, True), (0, True), (20, False), (0, False)])
def test_what_a_server_refuses_is_not_asked_for_again(most: int, system: bool, tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes:
        roles = [message["role"] for message in request["messages"]]
        if ("system" in roles and not system) or request.get("top_logprobs", 0) > most:
            return http(400, "not supported")
        return listed("1", [("1", {"1": 0.8, "2": 0.2})]) if "logprobs" in request else answer("1")

    with serving(treat) as server:
        found = ServerJudge(client(server.url, tmp_path)).ask(["p"] * 8, ["a"] * 8, [str(n) for n in range(8)])
        assert {a.p_first for a in found} == {0.8 if most else 1.0}
        last = server.requests[-1]
        assert (last.get("top_logprobs", 0), len(last["messages"])) == (most, 1 + system)  # type: ignore[arg-type]
        assert len(server.requests) <= 6 + 8


def test_a_question_that_is_refused_for_its_length_is_missing_and_the_others_are_judged(tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes:
        return http(400, "context length exceeded") if "loooong" in said(request) else answer("1")

    with serving(treat) as server:
        judge = ServerJudge(client(server.url, tmp_path))
        found = judge.ask(["p", "loooong", "q"], ["a"] * 3, ["b"] * 3)
    assert [a.p_first for a in found] == [1.0, None, 1.0]
    assert found[1].missing == "no answer came: refused with status 400"
    assert math.isnan(found[1].outside)


def test_a_server_that_refuses_everything_is_an_error(tmp_path: Path) -> None:
    for status in (400, 401, 404):
        with serving(lambda *_, status=status: http(status, "no")) as server:
            judge = ServerJudge(client(server.url, tmp_path / str(status)))
            with pytest.raises(Refused, match=f"status {status}") as refused:
                judge.ask(["p"], ["a"], ["b"])
            assert refused.value.status == status


def rating_by_tokens(number: int, request: dict[str, Any], connection: socket.socket) -> bytes:
    """A rater that likes length: 3 plus the number of characters, with a tenth of its mass on words."""
    if is_probe(request):
        return listed("1", [("1", {"1": 0.9})])
    rating = 3 + len(said(request).split("Answer:\n")[1].split("\n\nHow good")[0])
    return listed(str(rating), [(str(rating), {str(rating): 0.9, "It": 0.1})])


def pair_answers(judge_client: ChatClient) -> list[Any]:
    """What a pair judge says of three pairs."""
    return list(judged(ServerJudge(judge_client), ["p"] * 3, ["aaa", "a", "aa"], ["b", "bbb", "b"]))


def ratings(judge_client: ChatClient) -> list[Any]:
    """What a rater says of three answers."""
    return list(ServerRater(judge_client).rate(["p"] * 3, ["aaa", "a", "aa"]))


BOTH: dict[str, tuple[Treat, Callable[[ChatClient], list[Any]], int]] = {
    "pairs": (by_tokens, pair_answers, 1 + 6),
    "ratings": (rating_by_tokens, ratings, 1 + 3),
}


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr("amenable.feedback.client.random.uniform", lambda low, high: 0.02)


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("asked", BOTH)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_tried_again_and_what_is_said_is_the_same(fault: str, asked: str, tmp_path: Path) -> None:
    right, ask, questions = BOTH[asked]

    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        return FAULTS[fault](connection) if number in (0, 2, 4) else right(number, request, connection)

    with serving(right) as server:
        expected = ask(client(server.url, tmp_path / "right"))
    with serving(treat) as server:
        asking = client(server.url, tmp_path / "faults", parallel=1, tries=9)
        assert ask(asking) == expected
        assert len(server.requests) == questions + 3 == asking.spent.requests
        assert asking.spent.missing == 0


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("asked", BOTH)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_never_comes_is_missing_with_its_reason_and_the_rest_is_there(
    fault: str, asked: str, tmp_path: Path
) -> None:
    right, ask, _ = BOTH[asked]

    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        gone = not is_probe(request) and "aaa" in said(request)
        return FAULTS[fault](connection) if gone else right(number, request, connection)

    with serving(treat) as server:
        asking = client(server.url, tmp_path, parallel=1, tries=2)
        lost, *rest = ask(asking)
    value = (lambda found: found.p_first) if asked == "pairs" else (lambda found: found.rating)
    assert value(lost) is None
    assert math.isnan(lost.outside)
    [reason] = asking.spent.reasons
    assert reason
    assert lost.missing == f"no answer came: {reason}"
    assert all(value(found) is not None for found in rest)
    kept = [path for path in tmp_path.rglob("*.json") if "aaa" in path.read_text()]
    assert kept == []  # it is asked again next time


@pytest.mark.parametrize("asked", BOTH)
@pytest.mark.parametrize("fault", DELAYS)
def test_a_question_that_hangs_or_drips_is_missing_in_time(fault: str, asked: str, tmp_path: Path) -> None:
    right, ask, _ = BOTH[asked]

    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        slow = not is_probe(request) and "aaa" in said(request)
        return DELAYS[fault](connection) if slow else right(number, request, connection)

    with serving(treat) as server:
        asking = client(server.url, tmp_path, deadline=2.0)
        lost, *rest = ask(asking)
    assert any("no answer within 2 s" in reason for reason in asking.spent.reasons)
    assert "no answer within 2 s" in lost.missing
    assert all((found.p_first if asked == "pairs" else found.rating) is not None for found in rest)


def test_half_a_judgement_is_none(tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        if not is_probe(request) and longer(request) < 0.5 and "slow" in said(request):
            return DELAYS["hangs"](connection)
        return by_tokens(number, request, connection)

    with serving(treat) as server:
        judge = ServerJudge(client(server.url, tmp_path, deadline=2.0))
        slow, fast = judged(judge, ["slow", "p"], ["aaa", "aaa"], ["b", "b"])
    assert fast.p_first is not None
    assert slow.forward.p_first is not None  # one order came
    assert (slow.p_first, slow.averaged, slow.verdict, slow.consistent) == (None, None, None, None)
    assert "no answer within 2 s" in slow.missing


@pytest.mark.parametrize("asked", BOTH)
def test_a_budget_ends_the_asking_and_what_came_is_not_asked_again(asked: str, tmp_path: Path) -> None:
    right, ask, questions = BOTH[asked]
    with serving(right) as server:
        with pytest.raises(FeedbackError, match="budget for m is spent: 3 requests"):
            ask(client(server.url, tmp_path, requests=3))
        assert len(server.requests) == 3
        assert len(ask(client(server.url, tmp_path))) == 3
        assert len(server.requests) == questions


def test_an_interrupted_labelling_asks_only_for_the_rest(tmp_path: Path) -> None:
    pairs = ["p"] * 6, ["a" * n for n in range(6)], ["bb"] * 6
    with serving(by_tokens) as server:
        judge = ServerJudge(client(server.url, tmp_path, requests=8, parallel=2))
        with pytest.raises(FeedbackError, match="budget for m is spent: 8 requests"):
            judged(judge, *pairs)
        assert len(server.requests) == 8
        again = judged(ServerJudge(client(server.url, tmp_path)), *pairs)
        assert len(server.requests) == 1 + 12  # each question once, over both sessions
        assert all(j.p_first is not None for j in again)
        once_more = ServerJudge(client(server.url, tmp_path))
        assert judged(once_more, *pairs) == again
        assert len(server.requests) == 13
        assert once_more.client.spent.requests == 0


def test_a_rationale_is_written_first_and_goes_back_to_the_server(tmp_path: Path) -> None:
    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        if is_probe(request):
            return listed("1", [("1", {"1": 1.0})])
        if len(request["messages"]) == 2:
            return answer(" The first is short. " if "Answer 1:\na\n" in said(request) else "It is long.")
        return listed("2", [("2", {"2": 0.75, "1": 0.25})])

    with serving(treat) as server:
        judge = ServerJudge(client(server.url, tmp_path, parallel=1), Question(cot=True), rationale_tokens=99)
        [j] = judged(judge, ["p"], ["a"], ["bbb"])
        assert j.backward is not None
        assert (j.forward.rationale, j.backward.rationale) == ("The first is short.", "It is long.")
        assert (j.p_first, j.consistent) == (0.5, False)  # "2" in both orders
        thinking, asking = server.requests[1], server.requests[3]
        assert thinking["max_tokens"] == 99
        roles = [message["role"] for message in asking["messages"]]  # type: ignore[attr-defined]
        assert roles == ["system", "user", "assistant", "user"]
        assert "Reply with 1 or 2" not in said(thinking)
        assert "Reply with 1 or 2" in said(asking)


@pytest.mark.parametrize(
    ("places", "rating", "outside"),
    [
        ([("8", {"8": 0.5, "9": 0.5})], 8.5, 0.0),
        ([("10", {"10": 0.5, "1": 0.3})], (5 + 0.3) / 0.8, 0.2),  # "10" is a token: nothing is in doubt
        ([("1", {"1": 0.8}), ("0", {"0": 0.75})], 0.2 * 1 + 0.6 * 10, 0.2),  # "1", then "0" or not
        ([("8", {"8": 0.5, "1": 0.4})], 8.0, 0.5),  # what would have followed that "1" is not known
    ],
)
def test_a_rating_is_an_expectation_over_whole_numbers(
    places: Places, rating: float, outside: float, tmp_path: Path
) -> None:
    with serving(lambda *_: listed("words", places)) as server:
        rater = ServerRater(client(server.url, tmp_path))
        [found] = rater.rate(["p"], ["a"])
    expected = rating / 0.8 if rating == 6.2 else rating
    assert found.rating == pytest.approx(expected)
    assert found.outside == pytest.approx(outside)


@pytest.mark.parametrize(
    ("text", "rating"),
    [("8", 8.0), ("8/10", 8.0), ("10", 10.0), ("I say 7.5.", 7.5), ("11", None), ("0", None), ("good", None)],
)  # fmt: skip
def test_a_rating_is_read_from_the_text(text: str, rating: float | None, tmp_path: Path) -> None:
    with serving(lambda *_: answer(text)) as server:
        rater = ServerRater(client(server.url, tmp_path))
        scores = rater(prompts=["p"], completions=["a"], extra=[1])
    assert scores == [None if rating is None else pytest.approx((rating - 5.5) / 4.5)]
    assert rater.missing == (rating is None)
    assert rater.__name__.startswith("m@http")


@pytest.mark.slow
def test_a_real_model_behind_our_own_server_is_read_as_it_is(tmp_path: Path) -> None:
    entry = zoo.find("smollm2-135m")
    assert entry is not None
    if not zoo.folder_of(entry).is_dir():
        pytest.skip("smollm2-135m is not in the cache; amenable models fetch smollm2-135m")
    policy = load_policy("smollm2-135m", dtype="float32")
    with Server(("127.0.0.1", 0), policy, name="m") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        judge = ServerJudge(client(server.url, tmp_path, deadline=500.0))
        question, pair = judge.question, ("What is 2 + 2?", "It is 4.", "Bananas.")
        forward, long = judge.ask([pair[0], "too long " * 8000], [pair[1], "a"], [pair[2], "b"])
        server.shutdown()
    ending = "Which answer is better? Reply with 1 or 2 and nothing else."
    messages = [
        {"role": "system", "content": question.instructions()},
        {"role": "user", "content": f"{question.pair(*pair)}\n\n{ending}"},
    ]
    text = str(policy.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    ids, one, two = policy.encode(text), 0.0, 0.0
    for _ in range(16):  # greedily, up to the first answer that is written; the surest place counts
        with torch.no_grad():
            law = policy.model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
        likeliest = [(policy.tokenizer.decode([int(t)]).strip(), float(law[t])) for t in law.topk(20).indices]
        found = [sum(p for token, p in likeliest if token == answer) for answer in ("1", "2")]
        one, two = max((one, two), (found[0], found[1]), key=sum)
        ids.append(int(law.argmax()))
        if likeliest[0][0] in ("1", "2") or ids[-1] in policy.eos_ids:
            break
    assert one + two > LEAST
    assert forward.p_first == pytest.approx(one / (one + two), abs=1e-3)
    assert forward.outside == pytest.approx(1 - one - two, abs=1e-3)
    assert (long.p_first, long.missing) == (None, "no answer came: refused with status 400")
