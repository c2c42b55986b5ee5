"""Local judges: masses of whole strings against enumeration, what is missing, and real models whose taste is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_policy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from amenable.errors import ConfigError
from amenable.feedback.judging import judged, mean_outside, same_position
from amenable.feedback.likelihood_judge import LikelihoodJudge, LikelihoodScore
from amenable.feedback.local_judge import (
    RATINGS,
    LocalJudge,
    LocalRater,
    apart,
    expected_rating,
    string_masses,
)
from amenable.feedback.questions import Question
from amenable.policy import zoo
from amenable.policy.causal_lm import CausalLM
from amenable.policy.loading import load_policy
from amenable.task.docstrings import docstrings

SHORT = Question(preamble="Judge", criteria="", noun="A")


def next_law(policy: CausalLM, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)


def mass_of(policy: CausalLM, context: str, ids: list[int]) -> float:
    """P(the continuation begins with the tokens `ids`), step by step."""
    seen, mass = policy.encode(context), 1.0
    for token in ids:
        mass *= float(next_law(policy, seen)[token])
        seen = [*seen, token]
    return mass


def merging_policy() -> CausalLM:
    """A tiny model whose vocabulary has "10" and " 1" as tokens of their own, besides the bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate([*alphabet, "10", "Ġ1"])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[("1", "0"), ("Ġ", "1")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<eos>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>")
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    return CausalLM(AutoModelForCausalLM.from_config(config), tokenizer, name="merging")


def test_masses_are_those_of_whole_strings_and_of_separate_events() -> None:
    policy, context = tiny_policy(), "Score="
    masses = dict(zip(RATINGS, string_masses(policy, context, RATINGS), strict=True))

    def m(text: str) -> float:
        return mass_of(policy, context, policy.encode_completion(text, eos=False))

    assert masses["7"] == pytest.approx(m("7") + m(" 7"), rel=1e-4)
    assert masses["10"] == pytest.approx(m("10") + m(" 10"), rel=1e-4)
    # "1" begins "10": what goes on with 0 is the other string's
    assert masses["1"] == pytest.approx(m("1") + m(" 1") - m("10") - m(" 10"), rel=1e-4)
    assert masses["10"] > 0
    assert sum(masses.values()) == pytest.approx(sum(m(d) + m(f" {d}") for d in "123456789"), rel=1e-4)


def test_every_way_to_write_a_string_counts_once() -> None:
    policy, context = merging_policy(), "Score="
    ids = {name: policy.tokenizer.convert_tokens_to_ids(name) for name in ("1", "0", "10", "Ġ1", "Ġ")}
    assert policy.encode_completion("10", eos=False) == [ids["10"]]
    assert policy.encode_completion(" 10", eos=False) in ([ids["Ġ1"], ids["0"]], [ids["Ġ"], ids["10"]])
    [one, ten] = string_masses(policy, context, ["1", "10"])

    def m(*names: str) -> float:
        return mass_of(policy, context, [ids[name] for name in names])

    tens = m("10") + m("1", "0") + m("Ġ1", "0") + (m("Ġ", "10") if len({*policy.encode(" 10")} & {ids["Ġ"]}) else 0)
    ones = m("1") - m("1", "0") + m("Ġ1") - m("Ġ1", "0")
    assert ten == pytest.approx(tens, rel=1e-4)
    assert one == pytest.approx(ones, rel=1e-4)


def test_a_judges_answer_is_the_share_of_one_and_two() -> None:
    policy = tiny_policy()
    [answer] = LocalJudge(policy, SHORT).ask(["p"], ["a"], ["b"])
    context = "Judge\n\nText:\np\n\nA 1:\na\n\nA 2:\nb\n\nPreferred A="
    one, two = (
        sum(mass_of(policy, context, policy.encode_completion(text, eos=False)) for text in (s, f" {s}"))
        for s in ("1", "2")
    )
    assert answer.p_first == pytest.approx(one / (one + two), rel=1e-4)
    assert answer.outside == pytest.approx(1 - one - two, abs=1e-6)


def test_a_rationale_is_drawn_greedily_for_each_order_and_stands_before_the_ending() -> None:
    policy = tiny_policy()
    question = Question(preamble="J", criteria="", noun="A", cot=True)
    [j] = judged(LocalJudge(policy, question, rationale_tokens=6), ["p"], ["aa"], ["b"])
    assert j.backward is not None
    for answer, texts in ((j.forward, ("aa", "b")), (j.backward, ("b", "aa"))):
        body = f"J\n\n{question.pair('p', *texts)}\n\n"
        seen, drawn = policy.encode(f"{body}Rationale:"), list[int]()
        for _ in range(6):
            drawn.append(int(next_law(policy, seen + drawn).argmax()))
            if drawn[-1] in policy.eos_ids:
                break
        assert answer.rationale == policy.tokenizer.decode([t for t in drawn if t not in policy.eos_ids]).strip()
        one, two = string_masses(policy, f"{body}Rationale: {answer.rationale}\n\nPreferred A=", ["1", "2"])
        assert answer.p_first == pytest.approx(one / (one + two), rel=1e-4)


@pytest.mark.parametrize("cot", [False, True])
def test_what_does_not_fit_is_missing_with_its_length_and_the_others_are_judged(cot: bool) -> None:
    question = Question(preamble="J", criteria="", noun="A", cot=cot)
    judge = LocalJudge(tiny_policy(), question, rationale_tokens=4)
    good, bad = judge.ask(["p", "p" * 300], ["a", "a"], ["b", "b"])
    assert good.p_first is not None
    assert bad.p_first is None
    assert "tokens too long for tiny-llama" in bad.missing
    assert math.isnan(bad.outside)
    rater = LocalRater(tiny_policy(), Question(preamble="J", criteria=""), least=0.0)
    assert [r.rating is None for r in rater.rate(["p", "p" * 300], ["a", "a"])] == [False, True]
    assert rater.missing == 1


def test_an_answer_cannot_close_its_turn() -> None:
    policy = tiny_policy()
    text = "x<eos>y"
    assert policy.eos_ids[0] in policy.encode(text)  # as the tokenizer reads it
    assert policy.eos_ids[0] not in policy.encode(apart(policy, text))
    assert apart(policy, "a < b and eos") == "a < b and eos"
    [honest] = LocalJudge(policy, SHORT).ask(["p"], ["x< eos>y"], ["b"])
    assert LocalJudge(policy, SHORT).ask(["p"], [text], ["b"]) == [honest]


@pytest.mark.parametrize(("number", "score"), [(1, -1.0), (10, 1.0), (5, -1 / 9), (6, 1 / 9)])
def test_a_rating_is_mapped_to_minus_one_to_one(number: int, score: float) -> None:
    masses = [0.5 if i == number else 0.0 for i in range(1, 11)]
    rating = expected_rating(masses, "", 0.05)
    assert (rating.rating, rating.outside) == (number, 0.5)
    assert rating.score == pytest.approx(score)


def test_a_rating_is_an_expectation_and_missing_below_its_least_mass() -> None:
    uniform = expected_rating([0.1] * 10, "", 0.05)
    assert uniform.rating == pytest.approx(5.5)
    assert uniform.score == pytest.approx(0.0)
    low = expected_rating([0.001] * 10, "", 0.05)
    assert (low.rating, low.score, low.outside) == (None, None, pytest.approx(0.99))
    assert "0.01 of the mass is on a number" in low.missing
    assert expected_rating([0.0] * 10, "", 0.0).rating is None
    with pytest.raises(ConfigError, match="least=2"):
        LocalRater(tiny_policy(), least=2)


def test_a_rater_is_a_reward_function_for_trl() -> None:
    rater = LocalRater(tiny_policy(), Question(preamble="J", criteria=""), least=0.0)
    talk = rater(
        prompts=[[{"role": "user", "content": "p"}]], completions=[[{"role": "assistant", "content": "a"}]], ids=[1]
    )
    assert talk == rater(["p"], ["a"])
    assert talk[0] is not None
    assert -1 <= talk[0] <= 1
    assert rater.__name__ == "tiny-llama rating 1 to 10"


def test_likelihood_scores_are_those_of_the_tokens() -> None:
    policy = tiny_policy()

    def log_p(context: list[int], text: str) -> tuple[float, int]:
        ids, total = policy.encode_completion(text, eos=False), 0.0
        for k, token in enumerate(ids):
            total += math.log(float(next_law(policy, context + ids[:k])[token]))
        return total, len(ids)

    prompts, texts = ["abc", "x", "abc"], ["de", "long answer", ""]
    for measure in ("mean", "pmi", "pmi-mean"):
        score = LikelihoodScore(policy, measure)  # type: ignore[arg-type]
        found = score(prompts, texts)
        assert found[2] is None  # an empty answer has no likelihood
        assert score.missing == 1
        for prompt, text, value in zip(prompts[:2], texts[:2], found[:2], strict=True):
            given, n = log_p(policy.encode(prompt), text)
            alone, _ = log_p(policy.encode(""), text)
            expected = {"mean": given / n, "pmi": given - alone, "pmi-mean": (given - alone) / n}[measure]
            assert value == pytest.approx(expected, abs=1e-3)


def test_a_likelihood_judge_is_symmetric_and_leaves_out_what_is_too_long() -> None:
    judge = LikelihoodJudge(tiny_policy(), "mean", temperature=0.5)
    prompts = ["p", "q", "r" * 250]
    there = judged(judge, prompts, ["one", "b", "a"], ["two", "", "a" * 60])
    back = judged(judge, prompts, ["two", "", "a" * 60], ["one", "b", "a"])
    assert there[0].p_first is not None
    assert back[0].p_first is not None
    assert there[0].p_first == pytest.approx(1 - back[0].p_first, abs=1e-5)
    assert [j.p_first for j in there[1:]] == [None, None]
    assert "no score for the second answer" in there[1].missing
    with pytest.raises(ConfigError, match="measure"):
        LikelihoodScore(tiny_policy(), "median")  # type: ignore[arg-type]


# --- real models


def cached(name: str) -> Any:
    """A named model that this machine has; skipped where it would have to be fetched."""
    entry = zoo.find(name)
    assert entry is not None
    if not zoo.folder_of(entry).is_dir():
        pytest.skip(f"{name} is not in the cache; amenable models fetch {name}")
    return load_policy(name)


def docstring_pairs(n: int) -> Iterator[tuple[str, str, str]]:
    """A function, the first sentence of its docstring, and that of another function of the same module."""
    modules: dict[str, list[Any]] = {}
    for document in docstrings():
        modules.setdefault(document.id.split("#")[0].rpartition(".")[0], []).append(document)
    several = (documents for documents in modules.values() if len(documents) > 1)
    for _, documents in zip(range(n), several, strict=False):
        yield documents[0].text, documents[0].reference, documents[1].reference


def right(judge: Any, pairs: list[tuple[str, str, str]]) -> float:
    """Share of pairs where the true sentence wins, ties as halves."""
    functions, true, other = map(list, zip(*pairs, strict=True))
    labels = [j.p_first for j in judged(judge, functions, true, other)]
    return sum(0.0 if p is None else (1 + (p > 0.5) - (p < 0.5)) / 2 for p in labels) / len(labels)


def test_byte_tokenizers_split_nothing() -> None:
    assert byte_tokenizer()("10")["input_ids"] == tiny_policy().encode_completion("10", eos=False)


@pytest.mark.slow
def test_smollm2_knows_a_docstring_by_likelihood_and_follows_the_position_when_asked() -> None:
    policy = cached("smollm2-135m")
    pairs = list(docstring_pairs(16))
    asked = LocalJudge(policy, Question(noun="Summary", criteria="It says what the function does."))
    functions, true, other = map(list, zip(*pairs[:6], strict=True))
    found = judged(asked, functions, true, other)
    same, n = same_position(found)
    assert same >= n - 1  # it follows the position: both orders show that it knows nothing
    assert sum(j.p_first == 0.5 and j.consistent is False for j in found) == same
    outside = mean_outside(found)
    assert outside is not None
    assert 0 < outside < 1
    assert right(LikelihoodJudge(policy, "mean"), pairs) >= 0.75
    thinking = LocalJudge(policy, Question(noun="Summary", cot=True), rationale_tokens=16)
    [thought] = judged(thinking, functions[:1], true[:1], other[:1])
    assert thought.backward is not None
    assert thought.forward.rationale
    assert thought.backward.rationale
    assert thought.forward.p_first != thought.backward.p_first  # each order is a question of its own


@pytest.mark.slow
def test_the_half_billion_knows_by_pmi_what_it_cannot_say_when_asked() -> None:
    policy = cached("qwen2.5-coder-0.5b")
    pairs = list(docstring_pairs(20))
    asked = LocalJudge(policy, Question(noun="Summary", criteria="It says what the function does."))
    functions, true, other = map(list, zip(*pairs[:12], strict=True))
    found = judged(asked, functions, true, other)
    same, n = same_position(found)
    assert same > n / 3  # how often, and which position, is the wording's doing; a judge that reads has none
    share = right(LikelihoodJudge(policy, "pmi"), pairs)
    assert share >= 0.8
    assert right(asked, pairs[:12]) <= share - 0.15
