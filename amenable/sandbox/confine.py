"""The layers around a program, and whether each of them really holds on this kernel.

    namespaces   user, process ids, network, ipc, host name, mounts: entered once, by the zygote
    root         its own file system: Python's files, read-only, and nothing else of the host (no /proc, no /home)
    tmpfs        scratch folders in memory, 16 MiB and 512 files, seen by nobody else
    landlock     files: Python's own for reading, the scratch folder for writing
    seccomp      system calls: an allow-list
    rlimits      memory, CPU, file size, descriptors, core files

*Full* is all of them; *light* is Landlock, seccomp and rlimits, which no namespace is needed for. A layer
counts only if a trial child, confined like every other, was really refused what the layer refuses.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from amenable.sandbox import landlock, seccomp

# user; process ids, network, ipc, host name; mounts
_NEW_USER, _NEW_REST, _NEW_MOUNTS = 0x10000000, 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000, 0x00020000
_BIND, _RECURSIVE, _PRIVATE, _NO_SUID, _NO_DEVICES, _DETACH = 0x1000, 0x4000, 0x40000, 2, 4, 2
_PIVOT_ROOT, _MOUNT_SETATTR, _AT_RECURSIVE = {"x86_64": 155, "aarch64": 41}, 442, 0x8000
_HOST = ("/proc", "/sys", "/home", "/etc/passwd")  # of which a private root has none
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Layers:
    """What holds. `landlock` is the kernel's ABI version, 0 for none."""

    namespaces: bool = False
    root: bool = False
    tmpfs: bool = False
    landlock: int = 0
    seccomp: bool = False
    rlimits: bool = True
    network: bool = False

    def names(self) -> str:
        """For a verdict's record, such as "processes+rlimits+namespaces+landlock7+seccomp"."""
        held = ["processes"]
        held += [name for name in ("rlimits", "namespaces", "root", "tmpfs") if getattr(self, name)]
        held += [f"landlock{self.landlock}"] if self.landlock else []
        held += ["seccomp"] if self.seccomp else []
        return "+".join(held)

    @property
    def light(self) -> bool:
        """True if files, system calls, the network and resources are confined, with or without namespaces."""
        return bool(self.landlock) and self.seccomp and self.rlimits and self.network

    @property
    def full(self) -> bool:
        """True if every layer holds."""
        return self.light and self.namespaces and self.root


def enter_namespaces() -> bool:
    """Moves the calling process into new namespaces, all but that of mounts; False if refused.

    Its next child is process 1 of the new one.
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


def own_mounts() -> bool:
    """Moves the calling process into a mount namespace of its own; False if refused."""
    return not (
        _libc.unshare(_NEW_MOUNTS) or _libc.mount(None, b"/", None, ctypes.c_ulong(_PRIVATE | _RECURSIVE), None)
    )


def private_root(folder: str, read: Sequence[str]) -> bool:
    """Makes a file system of `read` alone, read-only, the root of this mount namespace; `folder` stays its only other path.

    False, and nothing changed, if the kernel refuses.
    """
    if _libc.mount(b"tmpfs", folder.encode(), b"tmpfs", ctypes.c_ulong(_NO_SUID | _NO_DEVICES), b"size=1m,mode=0755"):
        return False
    try:
        for path in read:
            _bind_read_only(path, folder + path)
        os.makedirs(folder + folder)
        _read_only(folder)
        os.chdir(folder)
        if _libc.syscall(_PIVOT_ROOT[platform.machine()], b".", b"."):
            raise OSError(ctypes.get_errno(), "pivot_root")
        _libc.umount2(b".", _DETACH)  # the host's root, which pivot_root has put on top of the new one
        os.chdir("/")
        return True
    except (OSError, KeyError):
        os.chdir("/")
        unmount(folder)
        return False


def _bind_read_only(path: str, target: str) -> None:
    if os.path.islink(path):  # /lib, where /usr is merged
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(path), target)
        return
    if os.path.exists(target):  # within a folder that is there already
        return
    os.makedirs(target if os.path.isdir(path) else os.path.dirname(target), exist_ok=True)
    if not os.path.isdir(path):
        os.close(os.open(target, os.O_CREAT))
    if _libc.mount(path.encode(), target.encode(), None, ctypes.c_ulong(_BIND | _RECURSIVE), None):
        raise OSError(ctypes.get_errno(), f"bind {path}")
    if not path.startswith("/dev/"):  # writing to /dev/null changes nothing
        _read_only(target)


def _read_only(path: str) -> None:
    attributes = ctypes.c_char_p(struct.pack("=QQQQ", 1, 0, 0, 0))
    if _libc.syscall(_MOUNT_SETATTR, -100, path.encode(), _AT_RECURSIVE, attributes, ctypes.c_size_t(32)):
        raise OSError(ctypes.get_errno(), f"read-only {path}")


def mount_scratch(folder: str) -> bool:
    """A small tmpfs over `folder`, in this mount namespace alone."""
    options = b"size=16m,nr_inodes=512,mode=0700"
    return not _libc.mount(b"tmpfs", folder.encode(), b"tmpfs", ctypes.c_ulong(_NO_SUID | _NO_DEVICES), options)


def unmount(folder: str) -> None:
    """Takes the tmpfs away with all that is in it."""
    _libc.umount2(folder.encode(), _DETACH)


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends."""
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)


def hide_memory() -> None:
    """Nobody without privileges may look into this process or its children: not through /proc, not by ptrace."""
    _libc.prctl(4, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """Processes that lose their parent become this process's children, to be killed by it."""
    _libc.prctl(36, 1, 0, 0, 0)


def limit(memory_mb: int, cpu_seconds: float, descriptors: int = 32) -> None:
    """Resource limits of the calling process. The kernel counts CPU in whole seconds; the zygote watches it finer."""
    memory = memory_mb << 20
    whole = int(cpu_seconds) + 1
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


def restrict(layers: Layers, ruleset: int) -> None:
    """Confines the calling process by every layer in `layers`, files by Landlock's `ruleset`.

    Raises OSError: then nothing may be run.
    """
    _libc.prctl(38, 1, 0, 0, 0)  # no_new_privs
    _drop_capabilities()
    if (
        layers.rlimits and layers.namespaces
    ):  # the count is per user namespace; without one it would be the whole user's
        resource.setrlimit(resource.RLIMIT_NPROC, (64, 64))
    if layers.landlock:
        landlock.restrict(ruleset)
    if layers.seccomp:
        seccomp.restrict()


def _refused(action: object) -> bool:
    try:
        action()  # type: ignore[operator]
    except OSError:
        return True
    return False


def probe(namespaces: bool, root: bool, tmpfs: bool, read: list[str]) -> Layers:
    """Confines a trial child and reports which layers really refuse what they should."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        held = Layers(namespaces, root and not any(map(os.path.exists, _HOST)), tmpfs, network=namespaces)
        _libc.prctl(38, 1, 0, 0, 0)
        with contextlib.suppress(OSError):
            landlock.restrict(landlock.rules(read, None))
            held.landlock = landlock.abi() if _refused(lambda: os.listdir("/")) else 0
        with contextlib.suppress(OSError):
            seccomp.restrict()
            held.seccomp = _refused(_fork_once) and _refused(lambda: os.kill(os.getppid() or 1, 0))
        held.network |= _refused(lambda: socket.socket().close())
        os.write(writer, json.dumps(asdict(held)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return Layers(**json.loads(data)) if data else Layers(namespaces, network=namespaces)


def _fork_once() -> None:
    if os.fork() == 0:
        os._exit(0)
