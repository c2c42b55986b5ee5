"""Data sets as the package `datasets` reads them, one row at a time: of the hub (streamed), saved on the disk, or tables.

    hub       OWNER/NAME, or OWNER/NAME:CONFIGURATION       never whole on the disk
    saved     the folder of `Dataset.save_to_disk`          a `DatasetDict`'s part is `split`
    folder    a data set's files as the hub keeps them      Parquet in a folder; a part is told by the files' names
    parquet, csv, arrow    files of that kind               every row; .tsv is csv

Rows come in the set's own order, so that a number says where to go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from amenable.errors import DataError, nearest

SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow"}
HUB, SAVED, FOLDER = "hub", "saved", "folder"


def kind_of(path: Path) -> str:
    """What a path holds: "saved", "parquet", "csv", "arrow", or "" for something else."""
    if path.is_dir():
        return SAVED if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")) else ""
    return SUFFIXES.get(path.suffix.lower(), "") if path.is_file() else ""


def table_rows(
    name: str, kind: str, files: Sequence[Path], *, split: str = "train", start: int = 0
) -> Iterator[Mapping[str, Any]]:
    """The rows from number `start` on. Errors: DataError: no package `datasets`, no such data set, file or split."""
    try:
        import datasets
    except ImportError:
        what = f"{name} is read by the package `datasets`, and it is not installed."
        raise DataError(what, "pip install 'amenable[hub]', or name text files or JSONL, or `python`.") from None
    try:
        rows: Any
        if kind == SAVED:
            held = datasets.load_from_disk(name)
            if isinstance(held, dict) and split not in held:
                raise DataError(f"{name} has no part {split!r}.", nearest(split, [str(known) for known in held]))
            rows = (held[split] if isinstance(held, dict) else held).to_iterable_dataset()
        elif kind in (HUB, FOLDER):
            own_name, _, configuration = name.partition(":") if kind == HUB else (name, "", "")
            rows = datasets.load_dataset(own_name, configuration or None, split=split, streaming=True)
        else:
            own: dict[str, Any] = {"sep": "\t"} if kind == "csv" and files[0].suffix.lower() == ".tsv" else {}
            paths = [str(path) for path in files]
            rows = datasets.load_dataset(kind, data_files={"train": paths}, split="train", streaming=True, **own)
        yield from rows.skip(start) if start else rows
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        told = f"({type(error).__name__}: {reason})."
        if kind == HUB:
            raise DataError(
                f"{name} could not be fetched from the hub {told}",
                "Offline, use the corpus `python` (this machine's own sources), or that data set's files.",
            ) from error
        raise DataError(f"{name} cannot be read {told}", "Check the file, and split= where it has parts.") from error
