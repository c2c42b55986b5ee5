"""Channels: what happens to a message on its way. Noise is an object, and the exact law of what arrives comes with it.

    W(m' | m)   m in {0 .. A-1}^L sent, m' received            Flip(p) @ Erase(q): first the one, then the other
    capacity  = max over P(m) of I(m; m') / L                   bits a symbol

    channel          with probability p ..
    Flip(p)          each symbol becomes one of the A - 1 others (symmetric channel)
    Erase(p)         each symbol becomes the mark "erased" (= A)
    Delete(p)        each symbol vanishes; what follows moves up
    Insert(p)        a uniformly drawn symbol is put in before each symbol
    Permute(p)       the message's symbols come in a uniformly drawn order
    Burst(p, length) a window of `length` neighbours, uniformly placed, has each of its symbols flipped

Strings that may be short end in the mark "empty" (= A + 1). Noise leaves marks alone: they are no symbols.
A channel is a mixture of *patterns*: maps of strings, each with its probability. `sample` draws one for each message,
`transition` adds up over all of them, so both are one law by construction (and tests compare them).
Source: Shannon 1948; Blahut 1972 and Arimoto 1972 (the iteration for the capacity). Klamra et al. 2025 and Vital et al. 2025
(arXiv 2502.12624) use erasure, deletion and flips in signalling games.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch

from amenable.errors import ConfigError

TOO_MANY = 1_000_000  # patterns times messages: seconds, and a matrix of as many cells at most


@dataclass(frozen=True)
class Channel:
    """What all channels share. `p` is a probability; 0 is a perfect channel."""

    p: float = 0.0
    marks: ClassVar[int] = 0
    """Symbols that can arrive besides the A sent: 0, 1 (erased) or 2 (erased, empty)."""
    memoryless: ClassVar[bool] = False
    """Whether each symbol has its own independent noise, of one law."""

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ConfigError(f"{type(self).__name__}({self.p}): noise is a probability", "use 0 <= p <= 1")

    def __matmul__(self, then: Channel) -> Channel:
        """This channel, then the other."""
        return Chain(parts=(*self.stages(), *then.stages()))

    def stages(self) -> tuple[Channel, ...]:
        return (self,)

    def received_length(self, length: int) -> int:
        """The most symbols that arrive of `length`."""
        return length

    def draws(self, length: int) -> int:
        """How many uniform numbers one message of `length` takes."""
        return length

    def corrupt(self, messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor) -> torch.Tensor:
        """What arrives of `messages` (..., L) int64, (..., L') int64; `uniforms` (..., draws(L)) in [0, 1)."""
        raise NotImplementedError

    def patterns(self, strings: torch.Tensor, alphabet: int) -> Iterator[tuple[float, torch.Tensor]]:
        """All maps of this mixture: their probability, and what they make of `strings` (M, L) int64, (M, L')."""
        raise NotImplementedError

    def sample(self, messages: torch.Tensor, generator: torch.Generator, *, alphabet: int) -> torch.Tensor:
        """What arrives of `messages` (..., L) int64, each with noise of its own: (..., L') int64."""
        shape = (*messages.shape[:-1], self.draws(messages.shape[-1]))
        uniforms = torch.rand(shape, generator=generator, device=generator.device)
        return self.corrupt(messages, alphabet, uniforms.to(messages.device))

    def transition(self, strings: torch.Tensor, alphabet: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, L') int64 all strings that can arrive, ascending, and W (M, R) float64, for `strings` (M, L) that are sent.

        Errors: ConfigError where the space is too large to enumerate.
        """
        width, found = alphabet + 2, []
        for probability, received in self.patterns(strings, alphabet):
            found.append((probability, received))
            if len(found) * len(strings) > TOO_MANY:
                raise ConfigError(
                    f"{self} on {len(strings)} messages of {strings.shape[1]}: too many outcomes to enumerate",
                    "use shorter messages, a smaller alphabet, or gradient='reinforce'",
                )
        places = width ** torch.arange(self.received_length(strings.shape[1]) - 1, -1, -1)
        codes = torch.stack([(received * places).sum(-1) for _, received in found])
        known, column = torch.unique(codes, return_inverse=True)
        matrix = torch.zeros(len(strings), len(known), dtype=torch.float64)
        for (probability, _), columns in zip(found, column, strict=True):
            matrix[torch.arange(len(strings)), columns] += probability
        return known.unsqueeze(1) // places % width, matrix

    def capacity(self, alphabet: int, length: int = 1) -> float:
        """Capacity in bits a symbol, of messages of `length` symbols (which matters only where noise has memory)."""
        if self.memoryless:
            length = 1
        strings = every_message(alphabet, length)
        return blahut_arimoto(self.transition(strings, alphabet)[1]) / length


@dataclass(frozen=True)
class Flip(Channel):
    """Each symbol becomes one of the other A - 1, uniformly, with probability p."""

    memoryless: ClassVar[bool] = True

    def draws(self, length: int) -> int:
        return length if self.p else 0

    def corrupt(self, messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor) -> torch.Tensor:
        return _flipped(messages, alphabet, uniforms, self.p)

    def patterns(self, strings: torch.Tensor, alphabet: int) -> Iterator[tuple[float, torch.Tensor]]:
        others = alphabet - 1
        for shift in itertools.product(range(alphabet if self.p else 1), repeat=strings.shape[1]):
            hit = sum(amount > 0 for amount in shift)
            yield (self.p / others) ** hit * (1 - self.p) ** (len(shift) - hit), _shifted(strings, alphabet, shift)

    def capacity(self, alphabet: int, length: int = 1) -> float:
        """log2 A - H(p) - p log2(A - 1)."""
        return math.log2(alphabet) - _binary_entropy(self.p) - self.p * math.log2(alphabet - 1)


@dataclass(frozen=True)
class Erase(Channel):
    """Each symbol becomes the mark "erased" with probability p."""

    marks: ClassVar[int] = 1
    memoryless: ClassVar[bool] = True

    def corrupt(self, messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor) -> torch.Tensor:
        return torch.where((uniforms < self.p) & (messages < alphabet), alphabet, messages)

    def patterns(self, strings: torch.Tensor, alphabet: int) -> Iterator[tuple[float, torch.Tensor]]:
        for probability, hit in _subsets(strings.shape[1], self.p):
            yield probability, torch.where(hit & (strings < alphabet), alphabet, strings)

    def capacity(self, alphabet: int, length: int = 1) -> float:
        """(1 - p) log2 A."""
        return (1 - self.p) * math.log2(alphabet)


@dataclass(frozen=True)
class Delete(Channel):
    """Each symbol vanishes with probability p, and what follows moves up."""

    marks: ClassVar[int] = 2

    def corrupt(self, messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor) -> torch.Tensor:
        return _compact(torch.where(uniforms < self.p, alphabet + 1, messages), alphabet)

    def patterns(self, strings: torch.Tensor, alphabet: int) -> Iterator[tuple[float, torch.Tensor]]:
        for probability, hit in _subsets(strings.shape[1], self.p):
            yield probability, _compact(torch.where(hit, alphabet + 1, strings), alphabet)


@dataclass(frozen=True)
class Insert(Channel):
    """Before each symbol a uniformly drawn one is put in with probability p."""

    marks: ClassVar[int] = 2

    def received_length(self, length: int) -> int:
        return 2 * length

    def corrupt(self, messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor) -> torch.Tensor:
        inserted = _scaled(uniforms, self.p, alphabet)
        return self._put(messages, torch.where(uniforms < self.p, inserted, alphabet + 1), alphabet)

    def patterns(self, strings: torch.Tensor, alphabet: int) -> Iterator[tuple[float, torch.Tensor]]:
        choices = (alphabet + 1, *range(alphabet)) if self.p else (alphabet + 1,)
        for chosen in itertools.product(choices, repeat=strings.shape[1]):
            hit = sum(symbol < alphabet for symbol in chosen)
            probability = (self.p / alphabet) ** hit * (1 - self.p) ** (len(chosen) - hit)
            yield probability, self._put(strings, torch.tensor(chosen).expand_as(strings), alphabet)

    def _put(self, messages: torch.Tensor, inserted: torch.Tensor, alphabet: int) -> torch.Tensor:
        """`inserted` before each symbol of `messages`; an empty place has no symbol to stand before."""
        inserted = torch.where(messages <= alphabet, inserted, alphabet + 1)
        return _compact(torch.stack([inserted, messages], -1).flatten(-2), alphabet)


@dataclass(frozen=True)
class Permute(Channel):
    """With probability p the message's symbols come in a uniformly drawn order."""

    def draws(self, length: int) -> int:
        return length + 1

    def corrupt(self, messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor) -> torch.Tensor:
        order = uniforms[..., 1:].argsort(-1)
        return _compact(torch.where(uniforms[..., :1] < self.p, messages.gather(-1, order), messages), alphabet)

    def patterns(self, strings: torch.Tensor, alphabet: int) -> Iterator[tuple[float, torch.Tensor]]:
        length = strings.shape[1]
        yield 1 - self.p, strings
        for order in itertools.permutations(range(length)) if self.p else ():
            yield self.p / math.factorial(length), _compact(strings[:, list(order)], alphabet)


@dataclass(frozen=True)
class Burst(Channel):
    """With probability p, `length` neighbouring symbols, uniformly placed, are each flipped to another."""

    length: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1:
            raise ConfigError(f"Burst(length={self.length}) hits nothing", "use 1 or more")

    def draws(self, length: int) -> int:
        return length + 2

    def corrupt(self, messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor) -> torch.Tensor:
        starts = self._starts(messages.shape[-1])
        start = (uniforms[..., 1:2] * starts).long()
        place = torch.arange(messages.shape[-1], device=messages.device)
        hit = (uniforms[..., :1] < self.p) & (place >= start) & (place < start + self.length)
        return torch.where(hit, _flipped(messages, alphabet, uniforms[..., 2:], 1.0), messages)

    def patterns(self, strings: torch.Tensor, alphabet: int) -> Iterator[tuple[float, torch.Tensor]]:
        starts, total = self._starts(strings.shape[1]), strings.shape[1]
        yield 1 - self.p, strings
        each = self.p / starts / (alphabet - 1) ** self.length
        for start in range(starts if self.p else 0):
            for shift in itertools.product(range(1, alphabet), repeat=self.length):
                yield each, _shifted(strings, alphabet, (*[0] * start, *shift, *[0] * (total - start - self.length)))

    def _starts(self, length: int) -> int:
        if length < self.length:
            raise ConfigError(f"a burst of {self.length} in a message of {length}", "use a shorter burst")
        return length - self.length + 1


@dataclass(frozen=True)
class Chain(Channel):
    """Channels one after the other, made by `first @ then`; `p` says nothing here."""

    parts: tuple[Channel, ...] = ()

    @property
    def marks(self) -> int:  # type: ignore[override]
        return max(part.marks for part in self.parts)

    @property
    def memoryless(self) -> bool:  # type: ignore[override]
        return all(part.memoryless for part in self.parts)

    def stages(self) -> tuple[Channel, ...]:
        return self.parts

    def received_length(self, length: int) -> int:
        return reduce(lambda size, part: part.received_length(size), self.parts, length)

    def draws(self, length: int) -> int:
        return sum(part.draws(size) for part, size in self._sized(length))

    def corrupt(self, messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor) -> torch.Tensor:
        used = 0
        for part, size in self._sized(messages.shape[-1]):
            messages = part.corrupt(messages, alphabet, uniforms[..., used : used + part.draws(size)])
            used += part.draws(size)
        return messages

    def transition(self, strings: torch.Tensor, alphabet: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The product of the stages' matrices."""
        matrix = torch.eye(len(strings), dtype=torch.float64)
        for part in self.parts:
            strings, step = part.transition(strings, alphabet)
            matrix = matrix @ step
        return strings, matrix

    def _sized(self, length: int) -> Iterator[tuple[Channel, int]]:
        for part in self.parts:
            yield part, length
            length = part.received_length(length)


def every_message(alphabet: int, length: int) -> torch.Tensor:
    """All A^L messages, ascending: (A^L, L) int64."""
    places = alphabet ** torch.arange(length - 1, -1, -1)
    return torch.arange(alphabet**length).unsqueeze(1) // places % alphabet


def blahut_arimoto(matrix: torch.Tensor, *, tolerance: float = 1e-10, steps: int = 100_000) -> float:
    """Capacity in bits of one use of a channel W (M, R), whose rows sum to 1; exact to `tolerance` bits if `steps` suffice.

    q(m) <- q(m) 2^d(m) / sum,  d(m) = KL(W(.|m) || sum_m q W) in bits;  log2 sum q 2^d <= capacity <= max d
    """
    w = matrix.double()
    own = torch.special.xlogy(w, w).sum(1)
    law = torch.full((len(w),), 1 / len(w), dtype=torch.float64)
    lower = 0.0
    for _ in range(steps):
        output = (law @ w).clamp(min=1e-300)
        distance = own - w @ output.log()
        lower = float(torch.logsumexp(law.log() + distance, 0))
        if float(distance.max()) - lower < tolerance:
            break
        law = (law.log() + distance - lower).exp().clamp(min=1e-300)
    return lower / math.log(2)


def _flipped(messages: torch.Tensor, alphabet: int, uniforms: torch.Tensor, p: float) -> torch.Tensor:
    """Symbols whose uniform number is below p become another one: the number itself, scaled up, says which."""
    if p == 0:
        return messages
    shift = 1 + _scaled(uniforms, p, alphabet - 1)
    return torch.where((uniforms < p) & (messages < alphabet), (messages + shift) % alphabet, messages)


def _scaled(uniforms: torch.Tensor, p: float, count: int) -> torch.Tensor:
    """0 .. count - 1, uniformly, from uniform numbers that are known to be below p."""
    return (uniforms * (count / p if p else 0.0)).long().clamp_(max=count - 1)


def _shifted(strings: torch.Tensor, alphabet: int, shift: tuple[int, ...]) -> torch.Tensor:
    return torch.where(strings < alphabet, (strings + torch.tensor(shift)) % alphabet, strings)


def _subsets(length: int, p: float) -> Iterator[tuple[float, torch.Tensor]]:
    """Every set of places hit, each with probability p, as (probability, (L,) bool)."""
    for hit in itertools.product((False, True) if p else (False,), repeat=length):
        yield p ** sum(hit) * (1 - p) ** (length - sum(hit)), torch.tensor(hit)


def _compact(strings: torch.Tensor, alphabet: int) -> torch.Tensor:
    """Empty places moved to the end, the rest in its order."""
    order = (strings > alphabet).to(torch.int8).argsort(dim=-1, stable=True)
    return strings.gather(-1, order)


def _binary_entropy(p: float) -> float:
    return -sum(share * math.log2(share) for share in (p, 1 - p) if share > 0)
