"""How fast games are played: many seeds in one program, and a single seed's step beside EGG's loop.

    OMP_NUM_THREADS=1 python bench/game.py [part=seeds,step,accuracy] [batches=32,256,2048] [repeats=3]

seeds  CPU milliseconds a step of the 5 x 5 game (exact gradient, mlp agents), one seed and 64 at once.
step   games a CPU second of the reconstruction game: 4 attributes of 10 values, GRU 64, REINFORCE speaker, at most 6 symbols
       of 10 with an end symbol. EGG (facebookresearch/EGG, MIT) is not on PyPI. The middle column is *our re-creation of EGG's
       loop, not EGG*: plain PyTorch that does what EGG's profile says it does at each step (a data loader that collates item by
       item, a GRU cell and a validated Categorical for each symbol, a packed receiver, interactions copied and kept, unfused
       Adam). EGG's own figures were measured on another machine state.

accuracy  CPU seconds until 95% of the objects of a small game are named right (2 attributes of 5 values; messages of at most 2
       symbols of 5 and an end symbol; noise 0), from the likeliest messages: 64 seeds of ours, mlp agents, exact gradient, and
       one seed of EGG's loop re-created (GRU 64, REINFORCE) at several learning rates, each given up after `most` CPU seconds.

Both run one thread, in turn, and CPU seconds count (other processes share the machine). A run's first steps are not counted.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from amenable.game import Attributes, Flip, Listener, Signalling, Speaker, train

HIDDEN, EMBEDDED, ENTROPY = 64, 10, 0.2
GAME = Signalling(Attributes((10, 10, 10, 10)), Flip(0.0), length=6, alphabet=10, eos=True)
EGG = {32: 3460, 256: 12879, 2048: 16954}  # games a CPU second, EGG 54eb11c, measured in 2026 (performance notes)
AIMS = {32: 1.8, 256: 1.6, 2048: 1.3}


class Stopwatch:
    """CPU seconds a step, from a training's progress calls; the first `skipped` steps do not count."""

    def __init__(self, skipped: int) -> None:
        self.skipped, self.times = skipped, [time.process_time()]

    def __call__(self, done: int = 0, total: int = 0) -> None:
        self.times.append(time.process_time())

    @property
    def seconds(self) -> float:
        kept = self.times[self.skipped :]
        return (kept[-1] - kept[0]) / (len(kept) - 1)


def ours(batch: int, steps: int) -> float:
    watch = Stopwatch(skipped=5)
    train(
        GAME,
        Speaker("gru", HIDDEN),
        Listener("gru", HIDDEN),
        gradient="reinforce",
        batch=batch,
        steps=steps,
        entropy=ENTROPY,
        progress=watch,
    )
    return watch.seconds


class PlainSpeaker(nn.Module):
    """One cell, one Categorical and one embedding a symbol, as in EGG's REINFORCE sender."""

    def __init__(self, game: Signalling) -> None:
        super().__init__()
        self.length = game.length
        self.start = nn.Linear(sum(game.world.values), HIDDEN)
        self.first = nn.Parameter(torch.zeros(EMBEDDED))
        self.embedding, self.cell = nn.Embedding(game.alphabet, EMBEDDED), nn.GRUCell(EMBEDDED, HIDDEN)
        self.out = nn.Linear(HIDDEN, game.alphabet)

    def forward(self, objects: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        state, read = self.start(objects), torch.stack([self.first] * len(objects))
        symbols, log_probs, entropies = [], [], []
        for _ in range(self.length):
            state = self.cell(read, state)
            law = torch.distributions.Categorical(logits=self.out(state).log_softmax(1))
            symbol = law.sample() if self.training else law.probs.argmax(1)
            symbols.append(symbol)
            log_probs.append(law.log_prob(symbol))
            entropies.append(law.entropy())
            read = self.embedding(symbol)
        return torch.stack(symbols, 1), torch.stack(log_probs, 1), torch.stack(entropies, 1)


class PlainListener(nn.Module):
    """An embedding and a GRU over packed messages, longest first, as in EGG's receiver."""

    def __init__(self, game: Signalling) -> None:
        super().__init__()
        self.embedding = nn.Embedding(game.alphabet, EMBEDDED)
        self.reader = nn.GRU(EMBEDDED, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, sum(game.world.values))

    def forward(self, messages: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        lengths, order = lengths.sort(descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(messages)[order], lengths, batch_first=True)
        _, last = self.reader(packed)
        return self.out(last[-1])[order.argsort()]


def plain(game: Signalling, batch: int, rate: float = 1e-3) -> Iterator[tuple[PlainSpeaker, PlainListener]]:
    """Our re-creation of EGG's loop, not EGG: the agents after each step, without end."""
    torch.manual_seed(0)
    count, length = len(game.world.values), game.length
    items = list(zip(game.world.inputs(), game.world.features, strict=True))
    speaker, listener = PlainSpeaker(game), PlainListener(game)
    optimizer = torch.optim.Adam([*speaker.parameters(), *listener.parameters()], lr=rate)
    baselines, kept, played = {"loss": 0.0, "length": 0.0}, [], 0
    while True:
        for objects, features in torch.utils.data.DataLoader(items, batch_size=batch, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            messages, log_probs, entropies = speaker(objects)
            lengths = lengths_of(messages)
            logits = listener(messages, lengths).view(batch * count, -1)
            cost = nn.functional.cross_entropy(logits, features.flatten(), reduction="none").view(batch, -1).mean(1)
            said, uncertainty = torch.zeros(batch), torch.zeros(batch)
            for place in range(length):
                counts = (place < lengths).float()
                said = said + log_probs[:, place] * counts
                uncertainty = uncertainty + entropies[:, place] * counts
            uncertainty = uncertainty / lengths.float()
            shaped = (lengths.float() * 0.0 - baselines["length"]) * said
            loss = cost.mean() + ((cost.detach() - baselines["loss"]) * said).mean() + shaped.mean()
            (loss - ENTROPY * uncertainty.mean()).backward()
            optimizer.step()
            played += 1
            for name, value in (("loss", cost.detach()), ("length", lengths.float() * 0.0)):
                baselines[name] += (value.mean().item() - baselines[name]) / played
            right = (logits.argmax(1).view(batch, -1) == features).float().mean(1)
            told = (objects, features, messages, logits, lengths.float(), right, uncertainty, cost)
            kept.append(tuple(part.detach().to("cpu", copy=True) for part in told))
            yield speaker, listener


def lengths_of(messages: torch.Tensor) -> torch.Tensor:
    """Symbols up to the first end symbol, which counts."""
    over = (messages == 0).cumsum(1) > 0
    return (messages.shape[1] - over.sum(1) + 1).clamp(max=messages.shape[1])


def seconds_of_plain(game: Signalling, batch: int, steps: int) -> float:
    watch = Stopwatch(skipped=5)
    for _ in itertools.islice(plain(game, batch), steps):
        watch()
    return watch.seconds


@torch.no_grad()
def understood(game: Signalling, speaker: PlainSpeaker, listener: PlainListener) -> float:
    """Share of the objects that are named right from the likeliest messages."""
    speaker.eval()
    messages, _, _ = speaker(game.world.inputs())
    speaker.train()
    logits = listener(messages, lengths_of(messages)).unflatten(1, (len(game.world.values), -1))
    return float((logits.argmax(-1) == game.world.features).all(1).float().mean())


def until_understood(game: Signalling, wanted: float, most: float, rate: float) -> tuple[float, float]:
    """CPU seconds of one training by the re-created loop until `wanted` is right (looked at every 50 steps), and what is."""
    spent, reached, training = 0.0, 0.0, plain(game, len(game.world.features), rate)
    while spent < most and reached < wanted:
        began = time.process_time()
        agents = [next(training) for _ in range(50)][-1]
        spent += time.process_time() - began
        reached = understood(game, *agents)
    return spent, reached


def accuracy(most: float, wanted: float = 0.95) -> None:
    game = Signalling(Attributes((5, 5)), Flip(0.0), length=2, alphabet=6, eos=True)
    began = time.process_time()
    runs = train(game, Speaker("mlp"), Listener("mlp"), seeds=64, steps=1000)
    spent, reached = time.process_time() - began, float(runs.clean.mean())
    print(f"CPU seconds until {wanted:.0%} of 25 objects are named right")
    print(f"  ours, 64 seeds, exact gradient, 1,000 steps  {spent:.1f} s, {spent / 64:.2f} a seed; {reached:.1%} right")
    found = {rate: until_understood(game, wanted, most, rate) for rate in (1e-3, 3e-3, 1e-2)}
    for rate, (seconds, share) in found.items():
        text = "" if share >= wanted else ", given up"
        print(f"  EGG's loop re-created, one seed, rate {rate:g}  {seconds:.1f} s; {share:.1%} right{text}")
    least = min(seconds for seconds, share in found.values() if share >= wanted or seconds >= most)
    print(f"  a seed of ours costs 1/{64 * least / spent:.0f} (aim: 1/10), all 64 {spent / least:.2f} of one")


def several(repeats: int, *runs: Callable[[], float]) -> list[list[float]]:
    """The figures of each run, run in turn."""
    rounds = [[run() for run in runs] for _ in range(repeats)]
    return [sorted(figures) for figures in zip(*rounds, strict=True)]


def seeds(repeats: int) -> None:
    def cost(count: int, steps: int) -> float:
        watch = Stopwatch(skipped=20)
        game = Signalling(Attributes((5, 5)), Flip(0.1))
        train(game, Speaker("mlp"), Listener("mlp"), seeds=count, steps=steps, progress=watch)
        return 1000 * watch.seconds

    one, many = several(repeats, lambda: cost(1, 300), lambda: cost(64, 150))
    print("CPU ms a step, 5 x 5 game, exact gradient (median [least, most] of", repeats, "runs)")
    for count, found in ((1, one), (64, many)):
        middle = statistics.median(found)
        print(f"  {count:>3} seeds  {middle:.2f} [{found[0]:.2f}, {found[-1]:.2f}]   {middle / count:.3f} a seed")
    print(
        f"  a seed of 64 costs 1/{64 * statistics.median(one) / statistics.median(many):.1f} of one alone (aim: 1/10)"
    )


def step(batches: list[int], repeats: int) -> None:
    print("games a CPU second, one seed (median [least, most] of", repeats, "runs)")
    print("  batch   EGG (notes)   EGG's loop re-created     ours                     ratio to notes, re-created (aim)")
    for batch in batches:
        steps = {32: 150, 256: 100}.get(batch, 39)
        own, other = several(
            repeats, lambda b=batch, n=steps: ours(b, n), lambda b=batch, n=steps: seconds_of_plain(GAME, b, n)
        )
        rates = [sorted(batch / seconds for seconds in found) for found in (other, own)]
        middles = [statistics.median(found) for found in rates]
        shown = [f"{m:.0f} [{r[0]:.0f}, {r[-1]:.0f}]" for m, r in zip(middles, rates, strict=True)]
        known = EGG.get(batch)
        ratio = f"{middles[1] / known:.2f}" if known else "-"
        print(
            f"  {batch:<6}  {known or '-':<12}  {shown[0]:<24}  {shown[1]:<24} "
            f"{ratio}, {middles[1] / middles[0]:.2f} ({AIMS.get(batch, '-')})"
        )


def main() -> None:
    given = dict(item.split("=", 1) for item in sys.argv[1:])
    torch.set_num_threads(1)
    repeats = int(given.get("repeats", 3))
    parts = given.get("part", "seeds,step").split(",")
    if "seeds" in parts:
        seeds(repeats)
    if "accuracy" in parts:
        accuracy(float(given.get("most", 120)))
    if "step" in parts:
        step([int(batch) for batch in given.get("batches", "32,256,2048").split(",")], repeats)


if __name__ == "__main__":
    main()
