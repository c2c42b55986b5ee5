"""Control tokens: <|good|> is placed before what a conditionally trained model writes, and neither token is in its texts.

    <eos> <|good|> prompt -> text

`with_controls` adds both tokens to a model that is to be trained; its tokenizer then puts <eos><|good|> before every prompt,
and its generation settings suppress tokens, so that plain `transformers` does both without knowing of it:

    tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer.decode(model.generate(**tokenizer("def", return_tensors="pt"), do_sample=True)[0], skip_special_tokens=True)

`conditioned` does the same to a loaded policy: what is suppressed has probability 0 in sampling and scoring alike, so the law
that is sampled is the law that is scored, and texts are without control tokens.

    placing   "first"   <|good|> stands before the text, both are suppressed afterwards: for segments of prose
              "each"    <|bad|> alone is suppressed: the model writes <|good|> where a segment begins, and it is stripped: for
                        segments of a line, where a model that had a token before nearly every line would miss it

Source: Korbak et al. 2023, arXiv 2302.08582, whose PEP8 models are sampled as "each", the others as "first".
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from tokenizers import processors

from amenable.errors import ModelError
from amenable.policy.causal_lm import CausalLM, LoRA
from amenable.records import Samples
from amenable.seeding import torch_generator

GOOD, BAD = "<|good|>", "<|bad|>"
Placing = Literal["first", "each"]


@dataclass(frozen=True)
class Controls:
    """Ids of the two tokens, and which tokens a text may not hold."""

    good: int
    bad: int
    suppressed: tuple[int, ...]

    @property
    def placing(self) -> Placing:
        return "first" if self.good in self.suppressed else "each"

    @property
    def ids(self) -> tuple[int, int]:
        """(good, bad)."""
        return self.good, self.bad


def controls_of(policy: CausalLM) -> Controls | None:
    """The control tokens of a policy, None if it has none."""
    known = policy.tokenizer.get_vocab()
    if GOOD not in known or BAD not in known:
        return None
    suppressed = getattr(getattr(policy.model, "generation_config", None), "suppress_tokens", None) or []
    return Controls(known[GOOD], known[BAD], tuple(int(token) for token in suppressed))


def with_controls(policy: CausalLM, *, placing: Placing) -> CausalLM:
    """A copy that knows the two tokens: embeddings drawn as the others lie, tokenizer and generation settings.

    Errors: ModelError for a tokenizer that cannot put a token before a prompt.
    """
    opening = policy.encode("")  # before the template is another one
    tokenizer, model = copy.deepcopy(policy.tokenizer), copy.deepcopy(policy.model)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer of {policy.name} cannot put {GOOD} before a prompt",
            "use a model with a fast tokenizer (tokenizer.json)",
        )
    tokenizer.add_special_tokens({"extra_special_tokens": [GOOD, BAD]}, replace_extra_special_tokens=False)
    ids = tokenizer.convert_tokens_to_ids([GOOD, BAD])
    with torch.no_grad():
        rows = [_like_the_others(weight) for weight in _embeddings(model)]
        if max(ids) >= len(_embeddings(model)[0]):
            model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        for weight, new in zip(_embeddings(model), rows, strict=True):
            weight[ids] = new
    first = [*opening, ids[0]]
    names = tokenizer.convert_ids_to_tokens(first)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*names, "$A"], special_tokens=list(dict(zip(names, first, strict=True)).items())
    )
    model.generation_config.suppress_tokens = ids if placing == "first" else ids[1:]
    return CausalLM(model, tokenizer, name=policy.name, rows=policy.rows)


def conditioned(policy: CausalLM, *, suppress: tuple[int, ...] | None = None) -> Conditioned:
    """`policy` as a law over texts without control tokens, without gradient; its own weights, not a copy of them.

    `suppress`: other tokens than those of its generation settings.
    Errors: ModelError for a policy without control tokens, or whose output layer is no linear one.
    """
    controls = controls_of(policy)
    if controls is None:
        raise ModelError(f"{policy.name} has no {GOOD}", "give a model that was trained with objective=conditional")
    head = policy.model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        raise ModelError(
            f"the output layer of {policy.name} is a {type(head).__name__}", "use a model with a linear one"
        )
    banned = controls.suppressed if suppress is None else suppress
    suppressing = torch.nn.Linear(head.in_features, head.out_features, device="meta", dtype=head.weight.dtype)
    suppressing.weight = torch.nn.Parameter(head.weight.detach(), requires_grad=False)
    bias = torch.zeros_like(head.weight[:, 0]) if head.bias is None else head.bias.detach().clone()
    bias[list(banned)] = -torch.inf
    suppressing.bias = torch.nn.Parameter(bias, requires_grad=False)
    model = copy.copy(policy.model)  # shares every weight, and has a head of its own
    model._modules = dict(policy.model._modules)
    model.set_output_embeddings(suppressing)
    return Conditioned(model, policy.tokenizer, name=policy.name, rows=policy.rows)


class Conditioned(CausalLM):
    """A policy whose contexts begin with <|good|> and whose texts hold no control token. Build it with `conditioned`."""

    def _text(self, samples: Samples, index: int) -> str:
        controls = controls_of(self)
        assert controls is not None
        kept = [token for token in samples.ids(index) if token not in controls.ids]
        row = torch.tensor([kept], dtype=torch.int64)
        bare = replace(samples, tokens=row, lengths=torch.tensor([len(kept)]), ended=[samples.ended[index]])
        return super()._text(bare, 0)

    def trainable_copy(self, adapter: LoRA | None = None) -> Self:
        """Errors: ModelError: a suppressed token would stay so; train the model that was loaded."""
        raise ModelError("a conditioned policy cannot be trained", "train the policy that it was made of")


def _like_the_others(weight: torch.Tensor) -> torch.Tensor:
    """Two rows from the mean and spread of all, always the same. Two equal ones would take long to be told apart."""
    noise = torch.randn(2, weight.shape[1], generator=torch_generator(0, "controls")).to(weight)
    return weight.mean(0) + weight.std(0) * noise


def _embeddings(model: Any) -> list[torch.Tensor]:
    """Input and output embeddings, once if they are tied."""
    found = {id(part.weight): part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    return list(found.values())
