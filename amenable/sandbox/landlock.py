"""Landlock through ctypes: a process may read Python's own files, write to its scratch folder, no more.

Rights grow with the kernel's ABI; each is asked for only where the kernel knows it. From ABI 4 on TCP is
refused too, from ABI 6 on signals to, and abstract sockets of, processes outside. Needs no privilege (kernel
documentation: userspace-api/landlock).
"""

from __future__ import annotations

import ctypes
import fcntl
import glob
import os
import struct
import sysconfig

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_TRUNCATE = 1 << 14
_IOCTL = 1 << 15
_PACKAGES = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip")
_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Landlock's version on this kernel; 0 if there is none."""
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def _file_rights(version: int) -> int:
    rights = (1 << 13) - 1
    if version >= 2:
        rights |= 1 << 13
    if version >= 3:
        rights |= _TRUNCATE
    if version >= 5:
        rights |= _IOCTL
    return rights


def readable() -> list[str]:
    """The folders and files that Python itself needs while it runs a program: no installed package is among them."""
    multiarch = str(sysconfig.get_config_var("MULTIARCH") or "")
    paths = {entry.path for folder in _standard() for entry in os.scandir(folder) if entry.name not in _PACKAGES}
    paths |= {*glob.glob(f"{sysconfig.get_config_var('LIBDIR')}/libpython*"), "/lib64", "/usr/lib64"}
    libraries = {f"/lib/{multiarch}", f"/usr/lib/{multiarch}"} if multiarch else {"/lib", "/usr/lib"}
    for folder in libraries:
        if os.path.isdir(folder):
            paths |= {entry.path for entry in os.scandir(folder) if ".so" in entry.name} if not multiarch else {folder}
    paths |= {"/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache", "/dev/urandom", "/dev/null", "/dev/zero"}
    return sorted(path for path in paths if os.path.exists(path))


def _standard() -> set[str]:
    return {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}


def _add(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL
        rule = struct.pack("=Qi", rights, descriptor)
        if _libc.syscall(_ADD, ruleset, 1, ctypes.c_char_p(rule), 0):
            raise OSError(ctypes.get_errno(), f"landlock_add_rule {path}")
    finally:
        os.close(descriptor)


def rules(read: list[str], write: str | None) -> int:
    """A rule set, as a descriptor: `read` may be read, below `write` files may be made. Raises OSError."""
    version = abi()
    if not version:
        raise OSError("no Landlock on this kernel")
    rights = _file_rights(version)
    attributes = struct.pack("=QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = int(_libc.syscall(_CREATE, ctypes.c_char_p(attributes), ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path in read:
        _add(ruleset, path, _READ_FILE | _READ_DIR)
    for folder in _standard():
        _add(ruleset, folder, _READ_DIR)  # to find modules in; it also tells the names of installed packages
    _add(ruleset, "/dev/null", (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
    if write is not None:  # but no exec, devices, sockets, fifos
        _add(ruleset, write, rights & ~1 & ~(1 << 6 | 1 << 9 | 1 << 10 | 1 << 11))
    high = fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, 200)  # out of the way of the low numbers that a child arranges
    os.close(ruleset)
    return high


def restrict(ruleset: int) -> None:
    """Confines the calling process for good; no_new_privs must be set. Raises OSError."""
    if _libc.syscall(_RESTRICT, ruleset, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
