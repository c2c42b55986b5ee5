"""Control tokens: <|good|> is placed before what a conditionally trained model writes, and neither token is in its texts.

    <eos> <|good|> prompt -> text

`with_controls` adds both tokens to a model that is to be trained; its tokenizer then puts <eos><|good|> before every prompt,
and its generation settings suppress tokens, so that plain `transformers` does both without knowing of it:

    tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer.decode(model.generate(**tokenizer("def", return_tensors="pt"), do_sample=True)[0], skip_special_tokens=True)

`conditioned` does the same to a policy, and `load_policy` does it to every model with control tokens: what is suppressed has
probability 0 in sampling, scoring and training alike, so the law that is sampled is the law that is scored, and control
tokens are no text. It is a policy like any other: trained further and saved, it is loaded as it was used.
`unconditioned` is the model as it learned: no token placed, none suppressed.

    placing   "each"    <|bad|> alone is suppressed: the model writes <|good|> where a segment begins, and it is stripped
              "first"   <|good|> stands before the text, both are suppressed afterwards. A model that learned to expect a token
                        before the second segment gives what is left to the end of the text, and stops there

A suppressed token has the bias -inf in the output layer: nothing else has to know of it, and the weights are shared.
Source: Korbak et al. 2023, arXiv 2302.08582, whose PEP8 models are sampled as "each", the others as "first".
Changed from the paper: "each" is the default of all tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import decoders, processors

from amenable.errors import ModelError
from amenable.policy.causal_lm import CausalLM
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
        return "first" if {self.good, self.bad} <= set(self.suppressed) else "each"

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
    known = controls_of(policy)
    policy = policy if known is None else unconditioned(policy)
    opening = policy.encode("")  # before the template is another one
    tokenizer, model = copy.deepcopy(policy.tokenizer), copy.deepcopy(policy.model)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer of {policy.name} cannot put {GOOD} before a prompt",
            "use a model with a fast tokenizer (tokenizer.json)",
        )
    tokenizer.add_special_tokens({"extra_special_tokens": [GOOD, BAD]}, replace_extra_special_tokens=False)
    ids = tokenizer.convert_tokens_to_ids([GOOD, BAD])
    if known is None:
        _embed(model, ids)
    _place(tokenizer, [*opening, ids[0]])
    model.generation_config.suppress_tokens = ids if placing == "first" else ids[1:]
    return CausalLM(model, tokenizer, name=policy.name, rows=policy.rows)


def conditioned(
    policy: CausalLM, *, on: Literal["good", "bad"] = "good", suppress: Sequence[int] | None = None
) -> CausalLM:
    """`policy` as a law over texts without control tokens, whose contexts begin with <|good|>; its own weights, no copy.

    on          "bad" places <|bad|> instead, and suppresses <|good|> where <|bad|> would be
    suppress    other tokens than those of its generation settings

    Errors: ModelError for a policy without control tokens, or whose output layer is no linear one.
    """
    policy = unconditioned(policy)
    controls = controls_of(policy)
    if controls is None:
        raise ModelError(f"{policy.name} has no {GOOD}", "give a model that was trained with objective=conditional")
    head = policy.model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        raise ModelError(
            f"the output layer of {policy.name} is a {type(head).__name__}", "use a model with a linear one"
        )
    given, other = controls.ids if on == "good" else controls.ids[::-1]
    banned = [other] if controls.placing == "each" else list(controls.ids)
    model = _with_head(policy.model, _suppressing(head, banned if suppress is None else list(suppress)))
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.suppress_tokens = banned
    tokenizer = copy.deepcopy(policy.tokenizer)
    _place(tokenizer, [*policy.encode(""), given])
    _unspoken(tokenizer)
    return CausalLM(model, tokenizer, name=policy.name, rows=policy.rows)


def unconditioned(policy: CausalLM) -> CausalLM:
    """`policy` as it learned, control tokens among the others and none placed; its own weights. Itself if it has none."""
    controls = controls_of(policy)
    if controls is None:
        return policy
    head, model = policy.model.get_output_embeddings(), policy.model
    if hasattr(head, "own_bias"):
        plain = _linear_like(head)
        plain.bias = None if head.own_bias is None else torch.nn.Parameter(head.own_bias, requires_grad=False)
        model = _with_head(model, plain)
    tokenizer = copy.deepcopy(policy.tokenizer)
    _place(tokenizer, [token for token in policy.encode("") if token not in controls.ids])
    return CausalLM(model, tokenizer, name=policy.name, rows=policy.rows)


# --- inside
def _suppressing(head: torch.nn.Linear, banned: list[int]) -> Any:
    """A layer over the same weights whose bias is -inf for `banned`: a buffer, which no optimiser changes.

    It is saved only where the model had a bias before. `own_bias` is that bias.
    """
    made = _linear_like(head)
    bias: Any = torch.zeros_like(head.weight[:, 0]) if head.bias is None else head.bias
    bias = bias.detach().clone()
    bias[banned] = -torch.inf
    made.register_buffer("bias", bias, persistent=head.bias is not None)
    made.register_buffer("own_bias", None if head.bias is None else head.bias.detach(), persistent=False)
    return made


def _linear_like(head: torch.nn.Linear) -> Any:
    """A linear layer that holds the very weight of `head`, and no bias yet."""
    made = torch.nn.Linear(head.in_features, head.out_features, bias=False, device="meta", dtype=head.weight.dtype)
    made.weight = head.weight
    del made.bias  # neither a parameter nor a buffer
    return made


def _with_head(model: Any, head: torch.nn.Linear) -> Any:
    """`model` with another output layer; it shares every other part."""
    other = copy.copy(model)
    other._modules = dict(model._modules)
    other.set_output_embeddings(head)
    return other


def _place(tokenizer: Any, opening: list[int]) -> None:
    """Make `tokenizer` put the tokens `opening` before every text."""
    names = tokenizer.convert_ids_to_tokens(opening)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*names, "$A"], special_tokens=list(dict(zip(names, opening, strict=True)).items())
    )


def _unspoken(tokenizer: Any) -> None:
    """Make control tokens no text in what `tokenizer` decodes."""
    inner = tokenizer.backend_tokenizer
    if inner.decoder is not None and GOOD not in repr(inner.decoder):
        silent = [decoders.Replace(name, "") for name in (GOOD, BAD)]
        inner.decoder = decoders.Sequence([*silent, inner.decoder])


def _embed(model: Any, ids: list[int]) -> None:
    """Rows for the new tokens `ids`, as the others lie."""
    with torch.no_grad():
        rows = [_like_the_others(weight) for weight in _embeddings(model)]
        if max(ids) >= len(_embeddings(model)[0]):
            model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        for weight, new in zip(_embeddings(model), rows, strict=True):
            weight[ids] = new


def _like_the_others(weight: torch.Tensor) -> torch.Tensor:
    """Two rows from the mean and spread of all, always the same. Two equal ones would take long to be told apart."""
    noise = torch.randn(2, weight.shape[1], generator=torch_generator(0, "controls")).to(weight)
    return weight.mean(0) + weight.std(0) * noise


def _embeddings(model: Any) -> list[torch.Tensor]:
    """Input and output embeddings, once if they are tied."""
    found = {id(part.weight): part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    return list(found.values())
