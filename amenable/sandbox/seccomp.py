"""A seccomp allow-list as raw BPF through ctypes: what Python needs to compute; nothing that reaches outside.

Not on the list, hence EPERM: fork and exec, sockets, ptrace and other processes' memory, mount and
namespaces, chmod and chown (Landlock does not govern them), memfd, io_uring, keys, bpf. `clone` is for
threads only; `clone3` says ENOSYS so that libc falls back to `clone`; signals go to oneself only; `prlimit64`
concerns oneself only. Of `fcntl` and `ioctl` only what a program does to its own descriptors.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_EVERYWHERE = """read:0,63 write:1,64 close:3,57 fstat:5,80 lseek:8,62 mmap:9,222 mprotect:10,226
munmap:11,215 brk:12,214 rt_sigaction:13,134 rt_sigprocmask:14,135 rt_sigreturn:15,139
pread64:17,67 pwrite64:18,68 readv:19,65 writev:20,66 sched_yield:24,124 mremap:25,216 msync:26,227
mincore:27,232 madvise:28,233 dup:32,23 nanosleep:35,101 getitimer:36,102 setitimer:38,103 getpid:39,172
exit:60,93 uname:63,160 flock:73,32 fsync:74,82 fdatasync:75,83 ftruncate:77,46 getcwd:79,17
chdir:80,49 fchdir:81,50 gettimeofday:96,169 getrlimit:97,163 getrusage:98,165 sysinfo:99,179 times:100,153
getuid:102,174 getgid:104,176 geteuid:107,175 getegid:108,177 getppid:110,173 sigaltstack:131,132
statfs:137,43 fstatfs:138,44 gettid:186,178 futex:202,98 sched_getaffinity:204,123 getdents64:217,61
set_tid_address:218,96 clock_gettime:228,113 clock_getres:229,114 clock_nanosleep:230,115 exit_group:231,94
epoll_ctl:233,21 openat:257,56 mkdirat:258,34 newfstatat:262,79 unlinkat:263,35 renameat:264,38
linkat:265,37 symlinkat:266,36 readlinkat:267,78 faccessat:269,48 pselect6:270,72 ppoll:271,73
set_robust_list:273,99 get_robust_list:274,100 epoll_pwait:281,22 eventfd2:290,19 epoll_create1:291,20
dup3:292,24 pipe2:293,59 renameat2:316,276 getrandom:318,278 membarrier:324,283 statx:332,291 rseq:334,293
close_range:436,436 faccessat2:439,439"""
_X86_ONLY = (2, 4, 6, 7, 21, 22, 23, 33, 34, 37, 78, 82, 83, 84, 85, 86, 87, 88, 89, 111, 158, 201, 232)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# clone, clone3, prlimit64, ioctl, fcntl, then the calls whose first argument must be one's own process id
_SPECIAL = {"x86_64": (56, 435, 302, 16, 72, (62, 234)), "aarch64": (220, 435, 261, 29, 25, (129, 131))}
# neither has the kernel send signals (owner of a descriptor, asynchronous mode): flags, locks, copies; sizes of terminals
_FCNTL = [0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030]
_IOCTL = [0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451]

_LOAD, _EQUAL, _SET, _RETURN, _AT_LEAST = 0x20, 0x15, 0x45, 0x06, 0x35
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_THREAD = 0x00010000
_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def supported() -> bool:
    """True on the architectures whose system call numbers are written down here."""
    return platform.machine() in _ARCHITECTURES


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


def _argument(number: int, index: int, allowed: list[int]) -> list[bytes]:
    """If the call is `number`, decide by the low half of its argument `index`."""
    tests = [step for value in allowed for step in (_step(_EQUAL, value, 0, 1), _step(_RETURN, _ALLOW))]
    body = [_step(_LOAD, 16 + 8 * index), *tests, _step(_RETURN, _ERRNO | _EPERM)]
    return [_step(_EQUAL, number, 0, len(body)), *body]


def program(process: int) -> bytes:
    """The BPF program for the process with this id (as the kernel shows it to itself)."""
    machine = platform.machine()
    column, architecture = _ARCHITECTURES[machine]
    clone, clone3, limits, ioctl, fcntl, own = _SPECIAL[machine]
    steps = [_step(_LOAD, 4), _step(_EQUAL, architecture, 1, 0), _step(_RETURN, _KILL), _step(_LOAD, 0)]
    if machine == "x86_64":
        steps += [_step(_AT_LEAST, 0x40000000, 0, 1), _step(_RETURN, _ERRNO | _EPERM)]
    numbers = [int(entry.split(":")[1].split(",")[column]) for entry in _EVERYWHERE.split()]
    for number in [*numbers, *(_X86_ONLY if machine == "x86_64" else ())]:
        steps += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW)]
    steps += [
        _step(_EQUAL, clone, 0, 4),
        _step(_LOAD, 16),
        _step(_SET, _THREAD, 0, 1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _ERRNO | _EPERM),
        _step(_EQUAL, clone3, 0, 1),
        _step(_RETURN, _ERRNO | _ENOSYS),
    ]
    for number in own:
        steps += _argument(number, 0, [process])
    steps += _argument(limits, 0, [0, process])
    steps += _argument(ioctl, 1, _IOCTL)
    steps += _argument(fcntl, 1, _FCNTL)
    return b"".join([*steps, _step(_RETURN, _ERRNO | _EPERM)])


def restrict() -> None:
    """Puts the filter on the calling process for good; no_new_privs must be set. Raises OSError."""
    if not supported():
        raise OSError(f"no seccomp filter written for {platform.machine()}")
    code = program(os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    wanted = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if _libc.prctl(22, 2, ctypes.byref(wanted), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
