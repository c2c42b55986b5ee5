"""What noise does to languages that are learned from nothing but being understood.

Every *arm* trains `seeds` pairs of speaker and listener in one program, at one noise, with one loss and one kind of speaker. A
*cell* is a loss with a speaker: `loss=factored,holistic speaker=mlp,table` gives the four in which each bias (of the training,
of the architecture) is there or not: a table has none, and the listener is of its speaker's kind. Within a cell every noise is
tested against the lowest: a one-sided permutation test over seeds, Holm over all tests of the run. Arms are stages: a run that
was killed goes on with the next arm, and a folder may be given more noise, losses or speakers later.

Source: Kucinski, Korbak, Kolodziej, Milos 2021, arXiv 2111.06464.
Changed from the paper: objects are attributes (world=5x5) or drawn shapes; messages are short, the expected loss is exact.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from amenable.errors import ConfigError
from amenable.evaluation.compositionality import METRICS
from amenable.game.agents import Listener, Speaker
from amenable.game.channels import Burst, Channel, Delete, Erase, Flip, Insert, Permute
from amenable.game.signalling import Signalling
from amenable.game.sweep import Arm, arm_of
from amenable.game.worlds import Attributes, Shapes
from amenable.progress import bar
from amenable.recipes.environment import machine, prepare
from amenable.recipes.settings import Recipe, setting
from amenable.recipes.signalling_report import Cell, build_report
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Run

CHANNELS: dict[str, type[Channel]] = {
    "flip": Flip, "erase": Erase, "delete": Delete, "insert": Insert, "permute": Permute, "burst": Burst,
}  # fmt: skip
SPEAKERS = ("mlp", "table", "gru", "attention", "cnn")
FREE = ("noise", "loss", "speaker", "metric", "permutations")


@dataclass(frozen=True)
class SignallingSettings:
    """The game, who plays it, and what is measured."""

    noise: tuple[float, ...] = setting(
        (0.0, 0.05, 0.1, 0.2, 0.3, 0.4),
        "probabilities of the channel; the lowest is what the others are tested against",
    )
    seeds: int = setting(64, "pairs trained in each arm, all at once")
    loss: tuple[str, ...] = setting(
        ("factored",), "what the listener's error credits", ("factored", "holistic", "all-or-nothing")
    )
    speaker: tuple[str, ...] = setting(("mlp",), "kinds of speaker; table: no bias of architecture", SPEAKERS)
    listener: str = setting(
        "same",
        "kind of listener; same: the speaker's, or mlp beside a cnn",
        ("same", "mlp", "table", "gru", "attention"),
    )
    world: str = setting("5x5", "numbers of values of the features, such as 5x5 or 3x3x3; or shapes: drawn images")
    channel: str = setting("flip", "what noise does to a message", tuple(CHANNELS))
    length: int = setting(2, "symbols of a message")
    alphabet: int = setting(5, "different symbols")
    eos: bool = setting(False, "symbol 0 ends a message, so that messages differ in length")
    held_out: float = setting(0.0, "share of the objects that training never shows")
    steps: int = setting(1500, "training steps")
    learning_rate: float = setting(3e-3, "Adam's step size")
    entropy: float = setting(1.0, "weight of the entropy bonus at the beginning, nats; 0 after half of the steps")
    gradient: str = setting("exact", "of the expected loss, or of samples of it", ("exact", "gumbel", "reinforce"))
    batch: int = setting(0, "objects a step; 0: all of them")
    metric: str = setting("topsim", "which number is tested", tuple(METRICS))
    permutations: int = setting(100, "dealings of the messages for what chance gives; 0: not shown")
    threads: int = setting(1, "CPU threads, 0 for all cores")
    seed: int = setting(0, "the first seed; the others follow it")


def game_of(settings: SignallingSettings, loss: str, noise: float) -> Signalling:
    """The game of an arm. Errors: ConfigError for a world, a noise or a length that cannot be."""
    return Signalling(
        world_of(settings),
        channel=CHANNELS[settings.channel](noise),
        length=settings.length,
        alphabet=settings.alphabet,
        loss=loss,  # type: ignore[arg-type]
        eos=settings.eos,
    )


def world_of(settings: SignallingSettings) -> Attributes:
    """ "shapes", or numbers of values with x between them."""
    world = Shapes() if settings.world == "shapes" else Attributes(values=_numbers(settings.world))
    return world.split(settings.held_out, settings.seed) if settings.held_out else world


def _numbers(world: str) -> tuple[int, ...]:
    parts = world.split("x")
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"world={world} is not known", "use numbers of values, such as 5x5 or 3x3x3, or shapes")
    return tuple(int(part) for part in parts)


def listener_of(settings: SignallingSettings, speaker: str) -> Listener:
    """The listener beside a kind of speaker."""
    same = "mlp" if speaker == "cnn" else speaker
    return Listener(same if settings.listener == "same" else settings.listener)  # type: ignore[arg-type]


def cells_of(settings: SignallingSettings) -> list[tuple[str, str]]:
    """(loss, speaker) of every cell. Errors: ConfigError where nothing is to be done or a part cannot be."""
    if not settings.noise or not settings.loss or not settings.speaker or settings.seeds < 1:
        raise ConfigError("a list is empty, or seeds is 0: nothing is trained", "name a noise, a loss and a speaker")
    if settings.permutations == 1 or settings.permutations < 0:
        raise ConfigError(f"permutations={settings.permutations} has no spread", "use 100, or 0 for none")
    for loss, noise in itertools.product(settings.loss, settings.noise):
        game_of(settings, loss, noise)
    for kind in settings.speaker:
        Speaker(kind)  # type: ignore[arg-type]
        listener_of(settings, kind)
    return list(dict.fromkeys(itertools.product(settings.loss, settings.speaker)))


def plan(settings: SignallingSettings) -> list[str]:
    """What is trained."""
    cells, game = cells_of(settings), game_of(settings, settings.loss[0], min(settings.noise))
    arms = len(cells) * len(dict.fromkeys(settings.noise))
    return [
        f"{arms} arms of {settings.seeds} pairs: {len(cells)} cells (loss, speaker), {arms // len(cells)} levels of noise",
        f"{game.world.objects} objects, messages of {settings.length} symbols out of {settings.alphabet}, "
        f"channel {settings.channel}, {settings.steps} steps each, gradient {settings.gradient}",
        f"tested: {settings.metric}, every noise against {min(settings.noise):g}, in each cell",
    ]


def run(settings: SignallingSettings, folder: Path) -> Report:
    """Train every arm that is not there yet; compare, and write the report into `folder`."""
    clock = prepare(settings.threads)
    cells = cells_of(settings)
    record = Run.of(folder, settings, free=FREE)
    found: list[Cell] = []
    for loss, speaker in cells:
        arms = []
        for noise in sorted(dict.fromkeys(settings.noise)):
            arms.append(_arm(settings, record, loss, speaker, noise))
            clock.lap(f"{loss}, {speaker}")
        found.append(Cell(loss, speaker, tuple(arms)))
    report = build_report(settings, found, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


def _arm(settings: SignallingSettings, record: Run, loss: str, speaker: str, noise: float) -> Arm:
    """The arm, trained now or read."""
    game, name = game_of(settings, loss, noise), f"{loss}, {speaker}, noise {noise:g}"

    def trained() -> list[dict[str, object]]:
        with bar(name) as progress:
            made = arm_of(
                game, Speaker(speaker), listener_of(settings, speaker), name=name, seeds=settings.seeds,  # type: ignore[arg-type]
                steps=settings.steps, seed=settings.seed, gradient=settings.gradient, entropy=settings.entropy,
                learning_rate=settings.learning_rate, batch=settings.batch or None, progress=progress,
            )  # fmt: skip
        return made.rows()

    return Arm.of_rows(name, noise, game, record.stage(name, trained))


RECIPE = Recipe(
    "signalling",
    "languages learned from being understood: what noise does to them, with tests",
    SignallingSettings,
    plan,
    run,
)
