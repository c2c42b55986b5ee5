"""The sampler: draw continuations of many prompts from one causal model, fast, and record their log-probabilities.

A batch of at most `rows` samples is decoded one token a step. Prompts are taken longest first; each is read once and its
keys and values are shared by its samples. Rows that finish leave the batch and new samples take their place, so the
batch stays full until the queue is empty. A sample's uniforms are its own (`seeding`), whatever batch it lands in.
On a CPU with several threads the work is dealt out to as many engines of one thread each: decoding is thousands of
small products, and threads that wait for each other at every one of them lose half of their time.

Source of the law: records.Decoding. Log-probabilities are those of that law, in nats, float32, written down at the draw.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

from amenable.policy.cache import Prefill, rebuild
from amenable.policy.decoder import Decoder, decoder
from amenable.policy.draw import draw
from amenable.policy.packing import packed_linears
from amenable.policy.scoring import length_groups
from amenable.records import Decoding, Ended
from amenable.seeding import torch_generator

GROWTH = 64  # columns of room left at a rebuild
REFILL = 0.25  # the batch is rebuilt when this share of it is free
POSITIONS = 1 << 16  # columns of all rows together: a few long prompts must not widen a full batch
READ = 1 << 12  # padded prompt tokens read at once

Progress = Callable[[int, int], None]


@dataclass
class Drawn:
    """What the engine wrote down for N samples: tokens and log_probs (N, max_tokens), lengths (N,), why each ended."""

    tokens: torch.Tensor
    log_probs: torch.Tensor
    lengths: torch.Tensor
    ended: list[Ended]

    @staticmethod
    def of(total: int, max_tokens: int) -> Drawn:
        """Room for `total` samples, of which nothing is written yet."""
        return Drawn(
            tokens=torch.zeros(total, max_tokens, dtype=torch.int64),
            log_probs=torch.zeros(total, max_tokens),
            lengths=torch.zeros(total, dtype=torch.int64),
            ended=["length"] * total,
        )


def draw_all(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    n: int,
    decoding: Decoding,
    eos_ids: Sequence[int],
    stopped: Callable[[torch.Tensor], bool] | None = None,
    seed: int,
    rows: int,
    progress: Progress | None = None,
) -> Drawn:
    """`n` samples of every prompt (token ids), prompt-major; at most `rows` are decoded at once.

    Same seed and number of threads, same bits. Samples do not depend on `rows` or the threads beyond rounding.
    """
    total = len(prompts) * n
    uniforms = torch.rand(total, decoding.max_tokens, generator=torch_generator(seed, "uniforms"), dtype=torch.float64)
    drawn = Drawn.of(total, decoding.max_tokens)
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    threads = torch.get_num_threads()
    workers = min(threads, total) if model.device.type == "cpu" else 1
    # samples of a prompt stay together, to read it once, unless there are too few prompts to go round
    hands = [[index * n + copy for copy in range(n)] for index in longest_first]
    if len(prompts) < workers:
        hands = [[sample] for hand in hands for sample in hand]
    done, lock, stop = 0, threading.Lock(), threading.Event()

    def work(worker: int, decode: Decoder) -> None:
        nonlocal done
        if workers > 1:
            torch.set_num_threads(1)  # of this Python thread
        queue = [sample for hand in hands[worker::workers] for sample in hand]
        engine = Engine(
            model, decode, prompts, n=n, queue=queue, drawn=drawn, uniforms=uniforms, decoding=decoding,
            eos_ids=eos_ids, stopped=stopped, rows=max(1, rows // workers),
        )  # fmt: skip
        for finished in engine.run():
            if stop.is_set():
                return
            with lock:
                done += finished
                if progress is not None and finished:
                    progress(done, total)

    with packed_linears(model, max(1, rows // workers)) as product:
        decode = decoder(model, product)
        if workers == 1:
            work(0, decode)
        else:
            with ThreadPoolExecutor(workers) as pool:
                try:
                    list(pool.map(work, range(workers), [decode] * workers))
                finally:  # after an error or Ctrl-C the other engines end at their next token
                    stop.set()
                    torch.set_num_threads(threads)
    _give_back_memory()
    return drawn


def _give_back_memory() -> None:
    """glibc keeps what the threads' caches took (gigabytes) for themselves; training needs it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Engine:
    """One batch that is decoded until its `queue` of samples is empty; what it draws is written into `drawn`."""

    def __init__(
        self,
        model: Any,
        decode: Decoder,
        prompts: Sequence[Sequence[int]],
        *,
        n: int,
        queue: list[int],
        drawn: Drawn,
        uniforms: torch.Tensor,
        decoding: Decoding,
        eos_ids: Sequence[int],
        stopped: Callable[[torch.Tensor], bool] | None,
        rows: int,
    ) -> None:
        self.model, self.decode, self.prompts, self.n, self.decoding = model, decode, prompts, n, decoding
        self.stopped, self.rows = stopped, rows
        self.device = model.device
        self.eos = torch.tensor(sorted(eos_ids), dtype=torch.int64, device=self.device)
        self.queue, self.drawn, self.uniforms = queue, drawn, uniforms
        # one entry a row of the live batch
        self.cache: Cache | None = None
        self.samples: list[int] = []
        self.alive: list[bool] = []
        self.start = self.position = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.last = torch.zeros(0, dtype=torch.int64, device=self.device)

    def run(self) -> Iterator[int]:
        """Rebuild where needed, decode one token a row, and yield how many samples finished, until all have."""
        while self.queue or any(self.alive):
            limit = self._capacity()
            free = limit - sum(self.alive)
            if (self.queue and free >= max(1, REFILL * limit)) or self._sparse():
                yield self._step(self._rebuild, max(0, free))
                continue
            if self.cache is not None and self.cache.layers[0].used == self.cache.get_max_length():
                yield self._step(self._rebuild, 0)
                continue
            yield self._step(self._decode)

    def _capacity(self) -> int:
        """How many rows the batch may have, given the columns of its longest row or of the next prompt."""
        width = len(self.prompts[self.queue[0] // self.n]) if self.queue else 1
        if self.cache is not None and any(self.alive):
            alive = torch.tensor(self.alive, device=self.device)
            width = max(width, self.cache.layers[0].used - int(self.start[alive].min()))
        return max(1, min(self.rows, POSITIONS // (width + GROWTH)))

    @staticmethod
    @torch.inference_mode()
    def _step(operation: Callable[..., int], *arguments: int) -> int:
        return operation(*arguments)

    def _decode(self) -> int:
        return self._record(range(len(self.samples)), self._forward())

    def _sparse(self) -> bool:
        return bool(self.samples) and sum(self.alive) <= (1 - REFILL) * len(self.samples)

    def _forward(self) -> torch.Tensor:
        """Logits (R, V) of the next token of every row."""
        assert self.cache is not None
        used = self.cache.layers[0].used
        mask = None
        if bool(self.start.any()):
            mask = torch.arange(used + 1, device=self.device).unsqueeze(0) >= self.start.unsqueeze(1)
        logits = self.decode(self.last, self.position, self.cache, mask)
        self.position = self.position + 1
        return logits

    def _record(self, rows: Sequence[int], logits: torch.Tensor) -> int:
        """Draw a token for `rows` (their logits in order), write it down, end the samples that end; how many did."""
        ids = torch.tensor([self.samples[row] for row in rows])
        counts = self.drawn.lengths[ids]
        # a dead row waits for the next rebuild: its draw is made and thrown away
        uniforms = self.uniforms[ids, counts.clamp(max=self.decoding.max_tokens - 1)].to(self.device)
        tokens, log_probs = draw(logits, uniforms, self.decoding)
        self.last[list(rows)] = tokens
        alive = torch.tensor([self.alive[row] for row in rows])
        at_eos = torch.isin(tokens, self.eos).cpu()
        self._write(ids[alive], counts[alive], tokens.cpu()[alive], log_probs.cpu()[alive])
        ended = at_eos | (counts + 1 >= self.decoding.max_tokens)
        look = alive if self.stopped is not None else alive & ended
        finished = 0
        for place in look.nonzero().flatten().tolist():
            finished += self._ends(rows[place], int(counts[place]) + 1, eos=bool(at_eos[place]))
        return finished

    def _write(self, samples: torch.Tensor, at: torch.Tensor, tokens: torch.Tensor, log_probs: torch.Tensor) -> None:
        self.drawn.tokens[samples, at] = tokens
        self.drawn.log_probs[samples, at] = log_probs
        self.drawn.lengths[samples] = at + 1

    def _ends(self, row: int, count: int, *, eos: bool) -> bool:
        """Whether the sample in `row` ends with its `count`-th token; why is written down."""
        sample = self.samples[row]
        if eos:
            self.drawn.ended[sample] = "eos"
        elif self.stopped is not None and self.stopped(self.drawn.tokens[sample, :count]):
            self.drawn.ended[sample] = "stop"
        elif count < self.decoding.max_tokens:
            return False
        self.alive[row] = False
        return True

    def _rebuild(self, free: int) -> int:
        """Drop finished rows, admit up to `free` new samples, draw their first token; how many ended at once."""
        keep = [row for row, alive in enumerate(self.alive) if alive]
        admitted, self.queue = self.queue[:free], self.queue[free:]
        kept = torch.tensor(keep, dtype=torch.int64, device=self.device)
        drop = int(self.start[kept].min()) if keep else 0
        old = self.cache if keep else None
        fresh, lengths, logits = self._prefill(admitted)
        width = max(lengths, default=0)
        used_old = old.layers[0].used if old is not None else 0
        drop = min(drop, max(0, used_old - width))  # a new prompt needs its own width of columns
        self.cache = rebuild(old, kept, drop, fresh, GROWTH) if keep or admitted else None
        used = max(used_old - drop, width)
        new_lengths = torch.tensor(lengths, dtype=torch.int64, device=self.device)
        assert not keep or used == used_old - drop, "longest prompts first: a later one never needs more columns"
        self.start = torch.cat([self.start[kept] - drop, used - new_lengths])
        self.position = torch.cat([self.position[kept], new_lengths])
        self.last = torch.cat([self.last[kept], torch.zeros_like(new_lengths)])
        self.samples = [self.samples[row] for row in keep] + admitted
        self.alive = [True] * len(self.samples)
        if logits is None:
            return 0
        return self._record(range(len(keep), len(self.samples)), logits)

    def _prefill(self, admitted: Sequence[int]) -> tuple[list[Prefill], list[int], torch.Tensor | None]:
        """Read the admitted samples' prompts once each, in groups: what was read, prompt lengths, first logits."""
        if not admitted:
            return [], [], None
        lengths = [len(self.prompts[sample // self.n]) for sample in admitted]
        fresh, logits = [], []
        unique = list(dict.fromkeys(sample // self.n for sample in admitted))  # longest first, as the queue is
        sizes = [len(self.prompts[index]) for index in unique]
        for group in length_groups(sizes, READ):
            chosen = [unique[place] for place in group]
            where = {index: row for row, index in enumerate(chosen)}
            copies = [where[sample // self.n] for sample in admitted if sample // self.n in where]
            cache, last = self._read(chosen)
            rows = torch.tensor(copies, device=self.device)
            fresh.append((cache, rows))
            logits.append(last.index_select(0, rows))
        return fresh, lengths, torch.cat(logits)

    def _read(self, chosen: Sequence[int]) -> tuple[DynamicCache, torch.Tensor]:
        """Keys and values of some prompts, left-padded, and the logits of their next tokens."""
        width = max(len(self.prompts[index]) for index in chosen)
        ids = torch.zeros(len(chosen), width, dtype=torch.int64)
        mask = torch.zeros(len(chosen), width, dtype=torch.int64)
        for row, index in enumerate(chosen):
            prompt = self.prompts[index]
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        cache = DynamicCache()
        out = self.model(
            input_ids=ids.to(self.device),
            attention_mask=None if bool(mask.all()) else mask.to(self.device),
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(self.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return cache, logits
