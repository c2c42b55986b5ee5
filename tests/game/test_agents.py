"""Every speaker is a law over messages, every listener reads what can arrive; none mixes two seeds."""

from __future__ import annotations

import pytest
import torch

from amenable.errors import ConfigError
from amenable.game import Attributes, Delete, Flip, Listener, Shapes, Signalling, Speaker

SPEAKERS = ("table", "mlp", "gru", "attention", "cnn")
LISTENERS = ("table", "mlp", "gru", "attention")


def game(kind: str = "", *, eos: bool = False) -> Signalling:
    world = Shapes((3, 2), size=8) if kind == "cnn" else Attributes((3, 2))
    return Signalling(world, Flip(0.1), length=3, alphabet=3, eos=eos)


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("kind", SPEAKERS)
def test_a_speaker_is_a_law_and_draws_from_it(kind: str, eos: bool) -> None:
    """The joint law sums to 1, says what sampling says of a message, and gives the shares that sampling has."""
    played = game(kind, eos=eos)
    speaker = Speaker(kind, 8).build(played, range(2))
    joint = speaker.log_joint(torch.arange(6)).detach().exp()
    assert joint.shape == (2, 6, len(played.messages))
    torch.testing.assert_close(joint.sum(-1), torch.ones(2, 6))
    n = 4000
    objects = torch.full((2, n), 4)
    spoken = speaker.speak(objects, torch.rand(2, n, 3, generator=torch.Generator().manual_seed(0)))
    which = (spoken.messages.unsqueeze(2) == played.messages).all(-1).double().argmax(-1)
    assert torch.equal(played.messages[which], spoken.messages)
    said = joint[:, 4].gather(1, which)
    torch.testing.assert_close(spoken.log_prob.detach().exp(), said, rtol=1e-4, atol=1e-6)
    shares = torch.nn.functional.one_hot(which, len(played.messages)).float().mean(1)
    assert float((shares - joint[:, 4]).abs().max()) < 5 * (0.25 / n) ** 0.5
    entropy = -(joint[:, 4] * joint[:, 4].clamp(min=1e-20).log()).sum(-1)
    assert float((spoken.entropy.detach().mean(1) - entropy).abs().max()) < 0.1


@pytest.mark.parametrize("kind", SPEAKERS)
def test_objects_are_shared_or_each_seeds_own(kind: str) -> None:
    speaker = Speaker(kind, 8).build(game(kind), range(2))
    shared = torch.tensor([3, 1, 1])
    mine = speaker.speak(shared.expand(2, 3))
    assert torch.equal(speaker.speak(shared).messages, mine.messages)
    torch.testing.assert_close(speaker.speak(shared).log_prob, mine.log_prob)
    assert torch.equal(mine.messages[:, 1], mine.messages[:, 2])


@pytest.mark.parametrize("channel", [Flip(0.1), Delete(0.2)])
@pytest.mark.parametrize("kind", LISTENERS)
def test_a_listener_reads_every_string(kind: str, channel: object) -> None:
    played = Signalling(Attributes((3, 2)), channel, length=2, alphabet=3)
    listener = Listener(kind, 8).build(played, range(3))
    read = played.one_hot(played.transition[0])
    logits = listener.logits(read)
    assert logits.shape == (3, len(read), 5)
    order = torch.randperm(len(read), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(listener.logits(read[order].expand(3, *read.shape)), logits[:, order])
    assert len(logits[0].detach().unique(dim=0)) == len(read)  # it tells them apart


@pytest.mark.parametrize("kind", ["gru"])
def test_nothing_is_read_after_the_end(kind: str) -> None:
    played = game(eos=True)
    listener = Listener(kind, 8).build(played, range(1))
    strings = torch.tensor([[1, 0, 0], [1, 0, 2], [1, 2, 0]])
    logits = listener.logits(played.one_hot(strings))
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    assert not torch.allclose(logits[:, 0], logits[:, 2])


def test_errors() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gru'"):
        Speaker("grú")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="without units"):
        Listener("mlp", 0)
    with pytest.raises(ConfigError, match="needs images"):
        Speaker("cnn").build(game(), [0])
    with pytest.raises(ConfigError, match="too many to enumerate"):
        Speaker("table").build(Signalling(length=6, alphabet=10), [0])
