"""amenable: make a language model better from any kind of feedback.

Feedback turns the pretrained model into a target distribution, and a method is one way of getting close to it:
target x proposal x divergence. Start with `amenable run ilf` or `docs/`.
"""

__version__ = "0.1.0"
