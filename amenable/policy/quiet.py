"""`transformers` without its own bars and warnings: what a run says is said by the run."""

from __future__ import annotations

from transformers.utils import logging


def quiet() -> None:
    """Errors only, and no "Loading weights" bar; downloads from the hub keep theirs."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
