"""Drawing and scoring with an encoder-decoder model: the encoder reads a source once, the decoder continues a prefix.

A batch of at most `rows` samples is decoded one token a step, with the model's own cache. Each distinct source is encoded
once, and what the decoder makes of it and of the prefix is shared by its samples. All rows of a batch are at the same step,
so none is padded; rows that finish leave the batch when enough of them have, and the next batch starts when all have.
A sample's uniforms are its own (`seeding`), whatever batch it lands in. The letters are those of `seq2seq`.

Log-probabilities are in nats, float32: those of the law that `Decoding` names when drawn, the model's own when scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutput

from amenable.policy import scoring
from amenable.policy.draw import draw
from amenable.policy.engine import POSITIONS, READ, Drawn, Progress
from amenable.records import Decoding
from amenable.seeding import torch_generator

FINISHED = 0.25  # finished rows leave the batch when they are this share of it


def draw_all(
    model: Any,
    prefix: Sequence[int],
    sources: Sequence[Sequence[int]],
    *,
    n: int,
    decoding: Decoding,
    eos_ids: Sequence[int],
    stopped: Callable[[torch.Tensor], bool] | None = None,
    seed: int,
    rows: int,
    progress: Progress | None = None,
) -> Drawn:
    """`n` samples of every source (token ids), source-major; at most `rows` are decoded at once.

    Same seed and number of threads, same bits. Samples do not depend on `rows` beyond rounding: each has its own uniforms.
    """
    total = len(sources) * n
    uniforms = torch.rand(total, decoding.max_tokens, generator=torch_generator(seed, "uniforms"), dtype=torch.float64)
    drawn = Drawn.of(total, decoding.max_tokens)
    eos = torch.tensor(sorted(eos_ids), dtype=torch.int64)
    done = 0
    with torch.inference_mode():
        for batch in _batches(model, prefix, sources, n=n, max_tokens=decoding.max_tokens, rows=rows):
            for step in range(decoding.max_tokens):
                tokens, log_probs = draw(batch.logits, uniforms[batch.samples, step].to(model.device), decoding)
                finished = _write(drawn, batch, step, tokens.cpu(), log_probs.cpu(), eos=eos, stopped=stopped)
                done += finished
                if progress is not None and finished:
                    progress(done, total)
                if not bool(batch.alive.any()):
                    break
                batch.advance(model, tokens)
    return drawn


class _Batch:
    """Rows that are decoded together: all of them are at the same step, because none joins later.

    samples (R,) which sample a row draws; alive (R,) whether it still does; logits (R, V) of its next token;
    memory (R, S, D) and mask (R, S): what the encoder made of its source, and which of it is no padding.
    """

    def __init__(
        self, model: Any, prefix: Sequence[int], memories: Sequence[torch.Tensor], rows: Sequence[tuple[int, int]]
    ) -> None:
        """`rows`: (place in `memories`, sample). The prefix is read once a memory; what was read of it is shared."""
        device = model.device
        places, samples = zip(*rows, strict=True)
        self.samples = torch.tensor(samples)
        self.alive = torch.ones(len(samples), dtype=torch.bool)
        self.memory = pad_sequence(list(memories), batch_first=True)
        self.mask = _mask([len(memory) for memory in memories]).to(device)
        self.cache: Any = None
        self._forward(model, torch.tensor([prefix], device=device).expand(len(memories), -1))
        self._select(torch.tensor(places, device=device))

    def advance(self, model: Any, tokens: torch.Tensor) -> None:
        """Append `tokens` (R,) to the rows; those that have finished leave first, if there are enough of them."""
        if int(self.alive.sum()) <= (1 - FINISHED) * len(self.alive):
            keep = self.alive.nonzero().flatten()
            self.samples, self.alive = self.samples[keep], self.alive[keep]
            tokens = tokens.index_select(0, keep.to(tokens.device))
            self._select(keep.to(tokens.device))
        self._forward(model, tokens.unsqueeze(1))

    def _forward(self, model: Any, ids: torch.Tensor) -> None:
        out = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.memory),
            attention_mask=self.mask,
            decoder_input_ids=ids,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache, self.logits = out.past_key_values, out.logits[:, -1]

    def _select(self, rows: torch.Tensor) -> None:
        self.cache.reorder_cache(rows)  # index_select of its keys and values, the decoder's own and those of the memory
        self.memory, self.mask = self.memory.index_select(0, rows), self.mask.index_select(0, rows)
        self.logits = self.logits.index_select(0, rows)


def _batches(
    model: Any, prefix: Sequence[int], sources: Sequence[Sequence[int]], *, n: int, max_tokens: int, rows: int
) -> Iterator[_Batch]:
    """Batches of at most `rows` samples, longest sources first; each distinct source is encoded once."""
    wanted: dict[tuple[int, ...], list[int]] = {}
    for index, source in enumerate(sources):
        wanted.setdefault(tuple(source), []).extend(range(index * n, (index + 1) * n))
    longest_first = sorted(wanted, key=lambda source: -len(source))
    queue = [(source, sample) for source in longest_first for sample in wanted[source]]
    memories: dict[tuple[int, ...], torch.Tensor] = {}
    while queue:
        size = max(1, min(rows, POSITIONS // (len(queue[0][0]) + max_tokens)))
        chosen, queue = queue[:size], queue[size:]
        place = {source: row for row, source in enumerate(dict.fromkeys(source for source, _ in chosen))}
        # a source whose samples did not all fit the batch before goes on here
        memories = {source: memory for source, memory in memories.items() if source in place}
        fresh = [source for source in place if source not in memories]
        for group in scoring.length_groups([len(source) for source in fresh], READ):
            memory, _ = _encode(model, [fresh[i] for i in group])
            memories |= {fresh[i]: memory[row, : len(fresh[i])] for row, i in enumerate(group)}
        in_order = [memories[source] for source in place]
        yield _Batch(model, prefix, in_order, [(place[source], sample) for source, sample in chosen])


def _write(
    drawn: Drawn,
    batch: _Batch,
    step: int,
    tokens: torch.Tensor,
    log_probs: torch.Tensor,
    *,
    eos: torch.Tensor,
    stopped: Callable[[torch.Tensor], bool] | None,
) -> int:
    """Write down token `step` of the rows that are alive, and which samples end with it; how many did."""
    alive = batch.alive
    samples = batch.samples[alive]
    drawn.tokens[samples, step] = tokens[alive]
    drawn.log_probs[samples, step] = log_probs[alive]
    drawn.lengths[samples] = step + 1
    at_eos = alive & torch.isin(tokens, eos)
    for sample in batch.samples[at_eos].tolist():
        drawn.ended[sample] = "eos"
    over = at_eos if step + 1 < drawn.tokens.shape[1] else alive.clone()
    if stopped is not None:
        for row in (alive & ~at_eos).nonzero().flatten().tolist():
            sample = int(batch.samples[row])
            if stopped(drawn.tokens[sample, : step + 1]):
                drawn.ended[sample] = "stop"
                over[row] = True
    batch.alive = alive & ~over
    return int(over.sum())


def token_log_probs(
    model: Any,
    prefix: Sequence[int],
    sources: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    positions: int = scoring.POSITIONS,
) -> torch.Tensor:
    """(N, L) float32 nats on the model's device, 0 at padding, with gradient where the model has one; in groups by length."""
    sizes = [len(source) + len(prefix) + int(length) for source, length in zip(sources, lengths, strict=True)]
    rows: list[torch.Tensor | None] = [None] * len(sizes)
    for group in scoring.length_groups(sizes, positions):
        values = _score_group(model, prefix, [sources[i] for i in group], tokens[group], lengths[group])
        for row, value in zip(group, values, strict=True):
            rows[row] = torch.nn.functional.pad(value, (0, tokens.shape[1] - len(value)))
    return torch.stack([row for row in rows if row is not None]) if rows else torch.zeros(tokens.shape)


def prefix_features(
    model: Any, prefix: Sequence[int], sources: Sequence[Sequence[int]], tokens: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """(M, D): the decoder's last layer where each of one group's M sampled tokens is predicted, row by row."""
    out = _decoded(model, prefix, sources, tokens, lengths, output_hidden_states=True)
    rows = zip(out.decoder_hidden_states[-1], lengths.tolist(), strict=True)
    return torch.cat([row[len(prefix) - 1 :][:length] for row, length in rows])


def _score_group(
    model: Any, prefix: Sequence[int], sources: Sequence[Sequence[int]], tokens: torch.Tensor, lengths: torch.Tensor
) -> Iterator[torch.Tensor]:
    out = _decoded(model, prefix, sources, tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        logits = out.logits[row, len(prefix) - 1 :][:length].float()
        yield -torch.nn.functional.cross_entropy(logits, tokens[row, :length].to(model.device), reduction="none")


def _decoded(
    model: Any,
    prefix: Sequence[int],
    sources: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    **asked: bool,
) -> Any:
    """One forward of the decoder over right-padded rows; a source that several rows have is encoded once."""
    device, width = model.device, int(lengths.max())
    place = {source: row for row, source in enumerate(dict.fromkeys(map(tuple, sources)))}
    owner = torch.tensor([place[tuple(source)] for source in sources], device=device)
    memory, mask = _encode(model, list(place))
    given = torch.tensor([prefix]).expand(len(sources), -1)
    return model(
        encoder_outputs=BaseModelOutput(last_hidden_state=memory.index_select(0, owner)),
        attention_mask=mask.index_select(0, owner),
        decoder_input_ids=torch.cat([given, tokens[:, : max(0, width - 1)]], 1).to(device),
        decoder_attention_mask=_mask([len(prefix) + max(0, int(length) - 1) for length in lengths]).to(device),
        use_cache=False,
        **asked,
    )


def _encode(model: Any, sources: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder's output (K, S, D) for K right-padded sources, and the mask (K, S) of what is no padding."""
    ids = pad_sequence([torch.tensor(source) for source in sources], batch_first=True).to(model.device)
    mask = _mask([len(source) for source in sources]).to(model.device)
    memory: torch.Tensor = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    return memory, mask


def _mask(lengths: Sequence[int]) -> torch.Tensor:
    """(R, longest) int64, 1 at the first `lengths[r]` places of row r."""
    return (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
