"""Running programs that nobody trusts: `Sandbox`, and `Job` for one check of many."""

from amenable.sandbox.box import Job, Sandbox

__all__ = ["Job", "Sandbox"]
