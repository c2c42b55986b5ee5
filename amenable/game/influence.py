"""What messages do to a walker, by intervention; and how many bits they carry of action and goal.

    silenced   the sent message is drawn uniformly: a channel that carries nothing
    shuffled   it is one that the same speaker sent at another moment, to any goal and place
    swapped    the speaker is told another goal, and keeps to it for the whole walk
    I(m'; a)         received message and action       names the action: a command
    I(m'; a | p)     the same, given what the walker sees: does it listen at all?      (positive listening)
    I(m; g)          sent message and goal             names the goal: a place
    I(m; g, p)       sent message and all there is to know                             (positive signalling)

All informations are in bits, under the pair's own visits `d`, computed from the laws (no samples, so no bias of samples).
Statistics of messages can be high where nobody listens (Lowe et al.), so the interventions stand beside them.

A *held* message asks what it means to the walker alone: it hears that one string at every step, from anywhere. Where it goes
at first and where it ends (mean law over steps P .. 2P - 1) is the message's meaning as behaviour. What position k of a string
is for is how far the first action, the row and the column of the end move (total variation, mean over pairs of strings that
differ in symbol k alone).
Source: Lowe, Foerster, Boureau, Pineau, Dauphin 2019, arXiv 1903.05168 (positive signalling and listening, interventions).
Changed from the paper: its causal influence of one message on one action is here the change of success over whole walks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from amenable.game.walk import Walk, Walks


@dataclass(frozen=True)
class Influence:
    """Each (S,), one number a pair; `silenced_at` (S, L): success with only that symbol drawn uniformly."""

    success: torch.Tensor
    silenced: torch.Tensor
    shuffled: torch.Tensor
    swapped: torch.Tensor
    silenced_at: torch.Tensor
    action_bits: torch.Tensor
    listening_bits: torch.Tensor
    goal_bits: torch.Tensor
    signalling_bits: torch.Tensor


@dataclass(frozen=True)
class Meaning:
    """What each string that can arrive means to a walker who hears it all the time.

    actions  (S, R, 4)   the law of its next action, where the pair's own visits lead it
    ends     (S, R, P)   where it is in the end
    used     (S, R)      how often it is heard
    goals    (S, R, P)   P(goal | it is heard); 0 where it never is
    moved    (S, L', 3)  by how much another symbol at that position moves action, row and column of the end, in [0, 1]
    """

    actions: torch.Tensor
    ends: torch.Tensor
    used: torch.Tensor
    goals: torch.Tensor
    moved: torch.Tensor


def influence(walks: Walks) -> Influence:
    """Every intervention and information of trained pairs."""
    walk, sent, moves = walks.walk, walks.sent, walks.moves
    heard = sent @ walk.noise
    actions = walk.actions(heard, moves)
    visits = walk.visits(actions)
    uniform = torch.full_like(sent, 1 / sent.shape[-1])
    anybody = (visits.unsqueeze(-1) * sent).sum((1, 2))[:, None, None].expand_as(sent)
    every = heard.expand(*visits.shape, heard.shape[-1])
    used = visits.unsqueeze(-1) * every  # (S, G, P, R): goal, place, received message
    here = used.sum(1).unsqueeze(-1) * moves  # (S, P, R, 4)
    said = visits.unsqueeze(-1) * sent  # (S, G, P, M)
    return Influence(
        success=walk.success(actions),
        silenced=_with(walk, uniform, moves),
        shuffled=_with(walk, anybody, moves),
        swapped=swapped(walk, actions),
        silenced_at=torch.stack([_with(walk, _without(walk, sent, k), moves) for k in range(walk.length)], 1),
        action_bits=information(here.sum(1)),
        listening_bits=_given_place(here),
        goal_bits=information(said.sum(2)),
        signalling_bits=information(said.flatten(1, 2)),
    )


def information(joint: torch.Tensor) -> torch.Tensor:
    """I in bits between the last two axes of a joint law (..., A, B), each of which sums to 1: (...)."""
    apart = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return (torch.xlogy(joint, joint) - torch.xlogy(joint, apart)).sum((-1, -2)) / math.log(2)


def _given_place(joint: torch.Tensor) -> torch.Tensor:
    """I(m'; a | p) in bits: (S, P, R, 4) -> (S,)."""
    place = joint.sum((-1, -2), keepdim=True)
    inside = torch.where(place > 0, joint / place.clamp(min=1e-300), joint)
    return (place.squeeze(-1).squeeze(-1) * information(inside)).sum(-1)


def _with(walk: Walk, sent: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    return walk.success(walk.actions(sent @ walk.noise, moves))


def _without(walk: Walk, sent: torch.Tensor, k: int) -> torch.Tensor:
    """The law of what is sent when symbol k is drawn uniformly instead."""
    parts = sent.reshape(*sent.shape[:3], walk.alphabet**k, walk.alphabet, -1)
    return parts.mean(-2, keepdim=True).expand_as(parts).flatten(-3)


def swapped(walk: Walk, actions: torch.Tensor) -> torch.Tensor:
    """Success at the goal when the speaker is told another one, mean over the others: (S, P, P, 4) -> (S,)."""
    places, success = walk.grid.places, []
    for shift in range(1, places):  # goal g, told g + shift: every pair of different goals once
        success.append(walk.success(actions.roll(-shift, 1)))
    return torch.stack(success).mean(0)


def meaning(walks: Walks) -> Meaning:
    """What each received string does to a walker who hears nothing else."""
    walk, side = walks.walk, walks.walk.grid.side
    places = walk.grid.places
    moves = walks.moves.expand(-1, places, -1, -1)  # (S, P, R, 4)
    heard = walks.sent @ walk.noise
    visits = walk.visits(walk.actions(heard, walks.moves))
    used = visits.unsqueeze(-1) * heard
    by_place = used.sum(1)
    total = by_place.sum(1)
    weights = torch.where(total[:, None] > 0, by_place / total[:, None].clamp(min=1e-300), 1 / places)
    actions = (weights.unsqueeze(-1) * moves).sum(1)
    ends = _ends(walk.chain(moves.transpose(1, 2)))  # held: the message stands where the goal stood
    grid = ends.reshape(*ends.shape[:2], side, side)
    first = moves.mean(1)  # from anywhere
    laws = [first, grid.sum(-1), grid.sum(-2)]
    goals = used.sum(2).transpose(1, 2) / total.unsqueeze(-1).clamp(min=1e-300)
    moved = torch.stack([_moved(walk, laws, k) for k in range(walk.received.shape[1])], 1)
    return Meaning(actions, ends, total, goals, moved)


def _ends(chain: torch.Tensor) -> torch.Tensor:
    """Where a chain (S, R, P, P) is between steps P and 2P - 1, from a uniform start: (S, R, P)."""
    places = chain.shape[-1]
    law = torch.full((*chain.shape[:2], 1, places), 1 / places, dtype=chain.dtype)
    found = torch.zeros_like(law)
    for step in range(2 * places):
        found = found + law / places if step >= places else found
        law = law @ chain
    return found.squeeze(-2)


def _moved(walk: Walk, laws: list[torch.Tensor], k: int) -> torch.Tensor:
    """Mean total variation of each law between strings that differ in symbol k alone: (S, 3)."""
    strings = walk.received
    differ = strings.unsqueeze(0) != strings.unsqueeze(1)
    first, second = torch.nonzero(differ[..., k] & (differ.sum(-1) == 1), as_tuple=True)
    return torch.stack([(law[:, first] - law[:, second]).abs().sum(-1).mean(-1) / 2 for law in laws], -1)
