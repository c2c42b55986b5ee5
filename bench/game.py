"""How fast games are played: many seeds in one program, and a single seed's step beside EGG's loop.

    OMP_NUM_THREADS=1 python bench/game.py [part=seeds,step] [batches=32,256,2048] [repeats=3]

seeds  CPU milliseconds a step of the 5 x 5 game (exact gradient, mlp agents), one seed and 64 at once.
step   games a CPU second of the reconstruction game: 4 attributes of 10 values, GRU 64, REINFORCE speaker, at most 6 symbols
       of 10 with an end symbol. EGG (facebookresearch/EGG, MIT) is not on PyPI. The middle column is *our re-creation of EGG's
       loop, not EGG*: plain PyTorch that does what EGG's profile says it does at each step (a data loader that collates item by
       item, a GRU cell and a validated Categorical for each symbol, a packed receiver, interactions copied and kept, unfused
       Adam). EGG's own figures were measured on another machine state.

Both run one thread, in turn, and CPU seconds count (other processes share the machine). A run's first steps are not counted.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from amenable.game import Attributes, Flip, Listener, Signalling, Speaker, train

VALUES, SYMBOLS, LENGTH, HIDDEN, EMBEDDED = (10, 10, 10, 10), 10, 6, 64, 10
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
    game = Signalling(Attributes(VALUES), Flip(0.0), length=LENGTH, alphabet=SYMBOLS, eos=True)
    watch = Stopwatch(skipped=5)
    train(
        game,
        Speaker("gru", HIDDEN),
        Listener("gru", HIDDEN),
        gradient="reinforce",
        batch=batch,
        steps=steps,
        entropy=0.2,
        progress=watch,
    )
    return watch.seconds


class PlainSpeaker(nn.Module):
    """One cell, one Categorical and one embedding a symbol, as in EGG's REINFORCE sender."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(sum(VALUES), HIDDEN)
        self.first = nn.Parameter(torch.zeros(EMBEDDED))
        self.embedding, self.cell = nn.Embedding(SYMBOLS, EMBEDDED), nn.GRUCell(EMBEDDED, HIDDEN)
        self.out = nn.Linear(HIDDEN, SYMBOLS)

    def forward(self, objects: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        state, read = self.start(objects), torch.stack([self.first] * len(objects))
        symbols, log_probs, entropies = [], [], []
        for _ in range(LENGTH):
            state = self.cell(read, state)
            law = torch.distributions.Categorical(logits=self.out(state).log_softmax(1))
            symbol = law.sample()
            symbols.append(symbol)
            log_probs.append(law.log_prob(symbol))
            entropies.append(law.entropy())
            read = self.embedding(symbol)
        return torch.stack(symbols, 1), torch.stack(log_probs, 1), torch.stack(entropies, 1)


class PlainListener(nn.Module):
    """An embedding and a GRU over packed messages, longest first, as in EGG's receiver."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, EMBEDDED)
        self.reader, self.out = nn.GRU(EMBEDDED, HIDDEN, batch_first=True), nn.Linear(HIDDEN, sum(VALUES))

    def forward(self, messages: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        lengths, order = lengths.sort(descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(messages)[order], lengths, batch_first=True)
        _, last = self.reader(packed)
        return self.out(last[-1])[order.argsort()]


def plain(batch: int, steps: int) -> float:
    """Our re-creation of EGG's loop, not EGG."""
    torch.manual_seed(0)
    world = Attributes(VALUES)
    items = list(zip(world.inputs(), world.features, strict=True))
    speaker, listener = PlainSpeaker(), PlainListener()
    optimizer = torch.optim.Adam([*speaker.parameters(), *listener.parameters()])
    baselines, kept, watch, played = {"loss": 0.0, "length": 0.0}, [], Stopwatch(skipped=5), 0
    while played < steps:
        for objects, features in torch.utils.data.DataLoader(items, batch_size=batch, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            messages, log_probs, entropies = speaker(objects)
            over = (messages == 0).cumsum(1) > 0
            lengths = (LENGTH - over.sum(1) + 1).clamp(max=LENGTH)
            logits = listener(messages, lengths).view(batch * len(VALUES), -1)
            cost = nn.functional.cross_entropy(logits, features.flatten(), reduction="none").view(batch, -1).mean(1)
            said, uncertainty = torch.zeros(batch), torch.zeros(batch)
            for place in range(LENGTH):
                counts = (place < lengths).float()
                said = said + log_probs[:, place] * counts
                uncertainty = uncertainty + entropies[:, place] * counts
            uncertainty = uncertainty / lengths.float()
            shaped = (lengths.float() * 0.0 - baselines["length"]) * said
            loss = cost.mean() + ((cost.detach() - baselines["loss"]) * said).mean() + shaped.mean()
            (loss - 0.2 * uncertainty.mean()).backward()
            optimizer.step()
            played += 1
            for name, value in (("loss", cost.detach()), ("length", lengths.float() * 0.0)):
                baselines[name] += (value.mean().item() - baselines[name]) / played
            right = (logits.argmax(1).view(batch, -1) == features).float().mean(1)
            told = (objects, features, messages, logits, lengths.float(), right, uncertainty, cost)
            kept.append(tuple(part.detach().to("cpu", copy=True) for part in told))
            watch()
            if played == steps:
                break
    return watch.seconds


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
        own, other = several(repeats, lambda b=batch, n=steps: ours(b, n), lambda b=batch, n=steps: plain(b, n))
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
    if "step" in parts:
        step([int(batch) for batch in given.get("batches", "32,256,2048").split(",")], repeats)


if __name__ == "__main__":
    main()
