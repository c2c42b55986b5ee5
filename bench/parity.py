"""Is it the same work? The gradients of the peers' losses, written down with plain autograd, beside ours, on one fixed batch.

DPG    -mean (P / (Z q) - 1) log pi, with q = pi and Z the batch's own
RLOO   -mean A log pi, A the reward less beta times the sequence's KL estimate, less the mean of the others
GRPO   -mean over tokens of ratio A - beta k3, rewards in units of their deviation; k3 = exp(a - pi) - (a - pi) - 1, the
       penalty inside of the loss (Shao et al. 2024, arXiv 2402.03300); with `ratio`, k3 times pi / sg(pi), as TRL 1.16
       has it: the gradient of a token's penalty is then (log pi - log a) grad log pi
"""

from __future__ import annotations

import torch

from amenable.policy.loading import load_policy
from amenable.records import Decoding

GAIN = 2.0


def parity(folder: str, prompt: str, tokens: int) -> list[tuple[str, float, float]]:
    """(loss, norm of our gradient, norm of the plain one) on a fixed batch of 8 samples of `tokens` and made-up rewards."""
    policy = load_policy(folder, dtype="float32")
    policy.eos_ids = []
    samples = policy.sample([prompt], n=8, decoding=Decoding(max_tokens=tokens), seed=1)
    learner = policy.trainable_copy()
    with torch.no_grad():  # a policy that has moved
        for _, value in learner.trainable_parameters():
            value.add_(1e-3 * value.std() * torch.randn(value.shape, generator=torch.Generator().manual_seed(3)))
    reward = torch.tensor([1.0, 0, 0, 1, 0, 1, 0, 0])
    ids = torch.tensor([[*c, *t.tolist()] for c, t in zip(samples.context_ids, samples.tokens, strict=True)])
    first = len(samples.context_ids[0])
    with torch.no_grad():
        reference = policy.model(ids).logits[:, first - 1 : -1].log_softmax(-1).gather(-1, ids[:, first:, None])[..., 0]

    def plain() -> torch.Tensor:
        logits = learner.model(ids).logits[:, first - 1 : -1]
        found: torch.Tensor = logits.log_softmax(-1).gather(-1, ids[:, first:, None])[..., 0]
        return found

    def norm(loss: torch.Tensor) -> float:
        learner.model.zero_grad()
        loss.backward()
        return float(sum(p.grad.double().square().sum() for _, p in learner.trainable_parameters()) ** 0.5)

    with torch.no_grad():
        now = plain()
    weight = (reference.sum(1) + GAIN * reward - now.sum(1)).double().exp()
    excess = (weight / weight.mean() - 1).float()
    beta, total = 0.04, len(reward)
    penalised = reward - beta * (now - reference).sum(1)
    advantage = (penalised - penalised.mean()) * total / (total - 1)
    scaled = (reward - reward.mean()) / (reward.std() + 1e-4)

    def grpo(corrected: bool) -> torch.Tensor:
        values = plain()
        gap, ratio = reference - values, (values - values.detach()).exp()
        penalty = (gap.exp() - gap - 1) * (ratio if corrected else 1.0)
        return -(ratio * scaled[:, None] - beta * penalty).mean(1).mean()

    by_token = -(scaled[:, None] - beta * (1 - (reference - now).exp())) / (total * tokens)
    corrected = -(scaled[:, None] - beta * (now - reference)) / (total * tokens)
    pairs = {
        "DPG": (-excess / total, lambda: -(excess * plain().sum(1)).mean()),
        "RLOO": (-advantage / total, lambda: -(advantage * plain().sum(1)).mean()),
        "GRPO": (by_token, lambda: grpo(False)),
        "GRPO, k3 with the ratio": (corrected, lambda: grpo(True)),
    }
    return [
        (name, norm(learner.weighted_log_prob(samples, weights)[0]), norm(loss()))
        for name, (weights, loss) in pairs.items()
    ]


def print_parity(folder: str, prompt: str, tokens: int) -> None:
    """The table. A ratio of times means something only if these agree."""
    print("| fixed batch: norm of the gradient of | ours | plain autograd | relative difference |\n|---|---|---|---|")
    for loss, mine, theirs in parity(folder, prompt, tokens):
        print(f"| {loss} | {mine:.6g} | {theirs:.6g} | {abs(mine - theirs) / theirs:.1e} |", flush=True)
