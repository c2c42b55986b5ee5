"""The layers around a program, and whether each of them really holds on this kernel.

    namespaces   user, process ids, network, ipc, host name, mounts: entered once, by the zygote
    tmpfs        scratch folders in memory, 16 MiB and 512 files, seen by nobody else
    landlock     files: Python's own for reading, the scratch folder for writing
    seccomp      system calls: an allow-list
    rlimits      memory, CPU, file size, descriptors, core files

A layer counts only if a trial child, confined like every other, was really refused what the layer refuses.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
from dataclasses import asdict, dataclass

from amenable.sandbox import landlock, seccomp

_NEW_USER, _NEW_REST = 0x10000000, 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Layers:
    """What holds. `landlock` is the kernel's ABI version, 0 for none."""

    namespaces: bool = False
    tmpfs: bool = False
    landlock: int = 0
    seccomp: bool = False
    rlimits: bool = True
    network: bool = False

    def names(self) -> str:
        """For a verdict's record, such as "processes+rlimits+namespaces+landlock7+seccomp"."""
        held = ["processes", "rlimits"]
        held += [name for name in ("namespaces", "tmpfs") if getattr(self, name)]
        held += [f"landlock{self.landlock}"] if self.landlock else []
        held += ["seccomp"] if self.seccomp else []
        return "+".join(held)


def enter_namespaces() -> bool:
    """Moves the calling process into new namespaces.

    Its next child is process 1 of the new one. False if refused.
    """
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEW_USER | _NEW_REST):
        return False
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user or 1000} {user} 1"),
            ("gid_map", f"{group or 1000} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        return False
    return True


def mount_scratch(folder: str) -> bool:
    """A small tmpfs over `folder`, in this mount namespace alone."""
    options = b"size=16m,nr_inodes=512,mode=0700"
    return not _libc.mount(
        b"tmpfs", folder.encode(), b"tmpfs", ctypes.c_ulong(2 | 4), options
    )  # nosuid, nodev


def unmount(folder: str) -> None:
    """Takes the tmpfs away with all that is in it."""
    _libc.umount2(folder.encode(), 2)


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends."""
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Processes that lose their parent become this process's children, to be killed by it."""
    _libc.prctl(36, 1, 0, 0, 0)


def limit(memory_mb: int, seconds: float, descriptors: int = 32) -> None:
    """Resource limits of the calling process."""
    memory = memory_mb << 20
    whole = int(seconds) + 1
    for name, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_DATA, memory, memory),
        (resource.RLIMIT_CPU, whole, whole + 1),
        (resource.RLIMIT_FSIZE, 8 << 20, 8 << 20),
        (resource.RLIMIT_NOFILE, descriptors, descriptors),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(name, (soft, hard))


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _libc.capset(header, (ctypes.c_uint32 * 6)())


def restrict(layers: Layers, read: list[str], scratch: str | None) -> None:
    """Confines the calling process by every layer in `layers`. Raises OSError: then nothing may be run."""
    _libc.prctl(38, 1, 0, 0, 0)  # no_new_privs
    _drop_capabilities()
    if layers.namespaces:  # the count is per user namespace; without one it would be the whole user's
        resource.setrlimit(resource.RLIMIT_NPROC, (64, 64))
    if layers.landlock:
        landlock.restrict(read, scratch)
    if layers.seccomp:
        seccomp.restrict()


def _refused(action: object) -> bool:
    try:
        action()  # type: ignore[operator]
    except OSError:
        return True
    return False


def probe(namespaces: bool, tmpfs: bool) -> Layers:
    """Confines a trial child and reports which layers really refuse what they should."""
    wanted = Layers(namespaces, tmpfs, landlock.abi(), seccomp.supported())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        held = asdict(wanted) | {"landlock": 0, "seccomp": False}
        _libc.prctl(38, 1, 0, 0, 0)
        try:
            landlock.restrict(landlock.readable(), None)
            if _refused(lambda: os.listdir("/")) and _refused(lambda: os.open("/etc/passwd", os.O_RDONLY)):
                held["landlock"] = wanted.landlock
        except OSError:
            pass
        try:
            seccomp.restrict()
            held["seccomp"] = _refused(_fork_once) and _refused(lambda: os.kill(os.getppid() or 1, 0))
        except OSError:
            pass
        held["network"] = namespaces or _refused(lambda: socket.socket().close())
        os.write(writer, json.dumps(held).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return Layers(**json.loads(data)) if data else Layers(namespaces, tmpfs, network=namespaces)


def _fork_once() -> None:
    if os.fork() == 0:
        os._exit(0)
