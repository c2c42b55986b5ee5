"""Landlock through ctypes: a process may read Python's own files, write to its scratch folder, no more.

Rights grow with the kernel's ABI; each is asked for only where the kernel knows it. From ABI 4 on TCP is
refused too, from ABI 6 on signals to, and abstract sockets of, processes outside. Needs no privilege (kernel
documentation: userspace-api/landlock).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sysconfig

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_TRUNCATE = 1 << 14
_IOCTL = 1 << 15
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
    """The folders and files that Python itself needs while it runs a program."""
    paths = {
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        str(sysconfig.get_config_var("LIBDIR") or ""),
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/etc/localtime",
        "/etc/ld.so.cache",
        "/dev/urandom",
        "/dev/null",
        "/dev/zero",
    }
    return sorted(path for path in paths if path and os.path.exists(path))


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


def restrict(read: list[str], write: str | None) -> None:
    """Confines the calling process for good; no_new_privs must be set. Raises OSError."""
    version = abi()
    if not version:
        raise OSError("no Landlock on this kernel")
    rights = _file_rights(version)
    attributes = struct.pack("=QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _libc.syscall(_CREATE, ctypes.c_char_p(attributes), ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path in read:
        _add(ruleset, path, _READ_FILE | _READ_DIR)
    _add(ruleset, "/dev/null", (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
    if write is not None:
        _add(ruleset, write, rights & ~1 & ~(1 << 6 | 1 << 9 | 1 << 10 | 1 << 11))  # no exec, devices, sockets, fifos
    if _libc.syscall(_RESTRICT, ruleset, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)
