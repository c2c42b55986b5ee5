"""Hostile and benign programs for a runner of untrusted code, as plain data: `ATTACKS`, and `LABELS`.

A runner survives an attack if its verdict is one of `outcomes`, in time, and the host is as it was. Kinds:

    benign       a right program: it must pass          resources   it uses up time, memory, processes, files
    host         it reaches for the machine             verdict     a wrong program that wants to pass
    robustness   program text that is odd

Host attacks pass only if they succeed. Before each run, `planted(attack, canary_file, outside)` fills in
`{canary_file}`, a file outside the sandbox that holds `CANARY`, and `{outside}`, a folder outside that the runner's own
user may write to and that must be unchanged afterwards; the environment variable `CANARY_VARIABLE` of the runner holds
`CANARY` too. Where `needs_unconfined_care` is set, a runner that confines nothing must not get the program at all.

`LABELS` are programs that win tests which (also) ask the program what is right. They may pass, but then the verdict's
`integrity` must be "cooperative", never "enforced".
"""

# ruff: noqa: E501  (a program stands on one line)

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

CANARY = "amenable-canary-5b1e"
CANARY_VARIABLE = "AMENABLE_CANARY"

PASS = frozenset({"pass"})
REFUSED = frozenset({"fail", "timeout", "crash", "memory", "protocol"})
DOUBLE = ("assert f(2) == 4", "assert f([1, 2]) == [1, 2, 1, 2]")
LEAKED = (f"assert {CANARY!r} in str(f(0))",)
DONE = ("assert f(0) == 'done'",)


@dataclass(frozen=True)
class Attack:
    """One program, its tests, and the verdicts that are acceptable; `why` says what it attempts."""

    name: str
    kind: str
    program: str
    tests: tuple[str, ...]
    outcomes: frozenset[str]
    why: str
    needs_unconfined_care: bool = False

    @property
    def needs_namespaces(self) -> bool:
        """True for what Landlock does not govern: whether a path exists, and how long the file is."""
        return self.name == "stat_outside"


def planted(attack: Attack, canary_file: str, outside: str) -> Attack:
    """The attack aimed at this machine: its placeholders filled in."""
    program = attack.program.replace("{canary_file}", canary_file).replace("{outside}", outside)
    return replace(attack, program=program)


def _of(
    kind: str, outcomes: frozenset[str] | set[str], tests: Iterable[str], *rows: tuple[object, ...], care: bool = False
) -> tuple[Attack, ...]:
    """Attacks of one kind from rows of (name, why, program[, tests][, outcomes])."""
    found = []
    for name, why, program, *rest in rows:
        own = next((tuple(part) for part in rest if isinstance(part, tuple)), tuple(tests))
        ends = next((frozenset(part) for part in rest if isinstance(part, set)), frozenset(outcomes))
        found.append(Attack(str(name), kind, str(program), own, ends, str(why), care))
    return tuple(found)


_BENIGN = _of(
    "benign", PASS, DOUBLE,
    ("benign_plain", "doubles", "def f(x): return x * 2"),
    ("benign_recursion", "recursion 800 deep", "def g(n): return 0 if n == 0 else 1 + g(n - 1)\ndef f(x): return x * 2 if g(800) == 800 else None"),
    ("benign_generator", "a generator", "def f(n):\n    for i in range(n): yield i * i", ("assert list(f(4)) == [0, 1, 4, 9]",)),
    ("benign_class", "a class with state", "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n    def pop(self): return self.items.pop()",
     ("s = Stack()\ns.push(3)\ns.push(4)\nassert s.pop() == 4 and s.pop() == 3",)),
    ("benign_closure", "a returned function, and one passed in", "def f(g, n): return lambda x: g(x) + n", ("assert f(lambda v: v * 10, 1)(2) == 21",)),
    ("benign_big_return", "100 000 numbers", "def f(n): return list(range(n))", ("assert f(100000) == list(range(100000))",)),
    ("benign_big_integers", "integers of 5000 digits", "def f(n): return 7 ** n", ("assert f(6000) == 7 ** 6000",)),
    ("benign_numeric", "200 000 steps of arithmetic", "import math\ndef f(n): return sum(math.sqrt(i) for i in range(n))", ("assert abs(f(200000) - 59628702.0) < 1000",)),
    ("benign_printing", "prints a megabyte", "def f(x):\n    for i in range(20000): print('x' * 50)\n    return x * 2"),
    ("benign_mutation", "changes its argument", "def f(a): a.reverse(); a[0].append(9)", ("a = [[1], [2]]\nf(a)\nassert a == [[2, 9], [1]]",)),
    ("benign_threads", "four threads, joined", "import threading\ndef f(x):\n    out = []\n    ts = [threading.Thread(target=out.append, args=(x,)) for _ in range(4)]\n    [t.start() for t in ts]; [t.join() for t in ts]\n    return out[0] * 2"),
    ("benign_scratch_file", "a file of its own in the present folder", "def f(x):\n    with open('own.txt', 'w') as file: file.write('hello')\n    return x * 2 if open('own.txt').read() == 'hello' else None"),
    ("benign_exception", "raises what the test expects", "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x", ("try:\n    f(-1)\n    raised = False\nexcept ValueError:\n    raised = True\nassert raised",)),
    ("benign_catches_everything", "a bare except around its own error", "def f(x):\n    try: 1 / 0\n    except: return x * 2"),
    ("benign_memoised", "functools, dataclasses, collections", "import functools\n@functools.lru_cache(None)\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\ndef f(x): return x * 2 if fib(80) == 23416728348467685 else None"),
)  # fmt: skip

_TIME = _of(
    "resources", {"timeout"}, DOUBLE,
    ("infinite_loop", "never ends", "def f(x):\n    while True: pass"),
    ("loop_at_import", "never ends loading", "while True: pass"),
    ("loop_catching_everything", "an interrupt does not end it", "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass"),
    ("sleep", "uses wall clock, no CPU", "import time\ndef f(x): time.sleep(1000)"),
    ("ignored_signals", "ignores every signal it may", "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ndef f(x):\n    while True: pass"),
    ("alarm_handler", "turns time limits by signals into a result", "import signal\ndef f(x):\n    try:\n        while True: pass\n    except BaseException: return x * 2\nsignal.signal(signal.SIGALRM, lambda *a: None); signal.setitimer(signal.ITIMER_REAL, 0)"),
    ("hang_in_c", "hangs within C code", "def f(x): return sum(range(10 ** 13))"),
    ("regex_hang", "a pattern that backtracks for ever", "import re\ndef f(x): return re.match('(a+)+$', 'a' * 64 + 'b')"),
    ("deadlock", "waits for a lock it holds", "import threading\ndef f(x):\n    lock = threading.Lock(); lock.acquire(); lock.acquire()"),
    ("waiting_for_input", "waits on a pipe nobody writes to", "import os\ndef f(x):\n    r, w = os.pipe(); return os.read(r, 1)"),
    ("sigstop_self", "stops itself", "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGSTOP)"),
    ("hang_in_repr", "an iterator that never ends, for whoever reads it", "import itertools\ndef f(x): return itertools.repeat(5)", ("assert list(f(2)) == [4]",), {"timeout", "memory"}),
    ("hang_in_thread", "threads that compute after the answer", "import threading\ndef spin():\n    while True: pass\ndef f(x):\n    for _ in range(8): threading.Thread(target=spin).start()\n    while True: pass", {"timeout", "fail", "memory"}),
    ("int_bomb", "an integer that does not fit", "def f(x): return 9 ** 9 ** 9", {"timeout", "memory"}),
    ("hash_collisions", "a dict that takes quadratic time", "def f(x): return len({i * ((1 << 61) - 1): 0 for i in range(1, 60000)})", {"timeout", "fail", "memory"}),
)  # fmt: skip

_MEMORY = _of(
    "resources", {"memory", "crash", "fail"}, DOUBLE,
    ("memory_at_once", "one list of 80 GB", "def f(x): return [0] * 10 ** 10"),
    ("memory_in_steps", "a megabyte at a time", "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 20))"),
    ("memory_shared", "anonymous shared pages", "import mmap\ndef f(x):\n    a = []\n    while True:\n        m = mmap.mmap(-1, 1 << 24); m.write(b'x' * (1 << 24)); a.append(m)"),
    ("memory_private_c", "malloc through ctypes", "import ctypes\nm = ctypes.CDLL(None).malloc; m.restype = ctypes.c_void_p; m.argtypes = [ctypes.c_size_t]\ndef f(x):\n    while True:\n        p = m(1 << 24)\n        if not p: raise MemoryError\n        ctypes.memset(p, 1, 1 << 24)"),
    ("memory_hidden", "catches MemoryError and goes on", "def f(x):\n    a = []\n    while True:\n        try: a.append(bytearray(1 << 20))\n        except MemoryError: pass", {"timeout", "memory", "crash"}),
    ("string_bomb", "a string doubled 60 times", "def f(x):\n    s = 'x' * 1000\n    for _ in range(60): s += s\n    return s"),
    ("range_for_the_judge", "a short value that is huge once read", "def f(x): return range(10 ** 12)", ("assert list(f(2)) == [4]",), {"memory", "fail", "protocol", "timeout", "crash"}),
    ("tuple_of_tuples", "small here, exponential when written out", "def f(x):\n    t = (1,)\n    for _ in range(60): t = (t, t)\n    return t", {"memory", "timeout", "protocol", "crash", "fail"}),
    ("list_of_itself", "small, and exponential in its repr", "def f(x):\n    a = [1]\n    for _ in range(60): a = [a, a]\n    return a", {"memory", "timeout", "protocol", "fail"}),
    care=True,
)  # fmt: skip

_SPACE = _of(
    "resources", REFUSED, DOUBLE,
    ("fork_bomb", "forks without end", "import os\ndef f(x):\n    while True: os.fork()"),
    ("fork_bomb_ctypes", "forks through libc", "import ctypes\ndef f(x):\n    while True:\n        if ctypes.CDLL(None).fork() < 0: raise OSError"),
    ("fork_bomb_multiprocessing", "processes of the standard library", "import multiprocessing\ndef f(x):\n    while True: multiprocessing.Process(target=f, args=(x,)).start()"),
    ("thread_bomb", "threads without end", "import threading, time\ndef f(x):\n    while True: threading.Thread(target=time.sleep, args=(99,)).start()"),
    ("disk_fill", "files without end", "def f(x):\n    i = 0\n    while True:\n        i += 1\n        open(f'{i}', 'wb').write(b'x' * 10 ** 6)"),
    ("disk_fill_one_file", "one file without end", "def f(x):\n    with open('a', 'wb') as file:\n        while True: file.write(b'x' * 10 ** 6)"),
    ("inode_fill", "empty folders without end", "import os\ndef f(x):\n    i = 0\n    while True: i += 1; os.mkdir(f'{i}')"),
    ("deep_folders", "a path too deep to remove by recursion", "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\ndef f(x): return 0"),
    care=True,
) + _of(
    "resources", REFUSED, DOUBLE,
    ("unreadable_folder", "a folder whose cleaner may not list it", "import os\nos.mkdir('d', 0o300); open('d/x', 'w')\ndef f(x): return 0"),
    ("descriptor_flood", "descriptors without end", "import os\ndef f(x):\n    while True: os.dup(1)"),
    ("stack_overflow", "recursion to a segmentation fault", "import sys\nsys.setrecursionlimit(10 ** 9)\nclass A:\n    def __getattr__(s, n): return getattr(s, n + 'x')\ndef f(x): return A().y"),
    ("recursion", "recursion to Python's own limit", "def f(x): return f(x)"),
    ("null_pointer", "reads address 0", "import ctypes\ndef f(x): ctypes.string_at(0)", {"crash"}),
    ("abort", "aborts", "import os\ndef f(x): os.abort()", {"crash"}),
    ("stdout_flood", "prints for ever", "def f(x):\n    while True: print('flood' * 1000)", {"timeout", "fail"}),
    ("stderr_flood", "prints for ever on descriptor 2", "import os\ndef f(x):\n    while True: os.write(2, b'x' * 65536)", {"timeout", "crash", "fail"}),
    ("huge_return", "returns 100 MB", "def f(x): return 'x' * (100 << 20)", {"protocol", "memory", "fail", "timeout"}),
    ("huge_exception", "raises with a message of 100 MB", "def f(x): raise ValueError('x' * (100 << 20))", {"fail", "memory", "protocol"}),
    ("deep_return", "returns a list 100 000 deep", "def f(x):\n    a = []\n    for _ in range(10 ** 5): a = [a]\n    return a", {"protocol", "fail", "crash"}),
    ("many_names", "defines a million names", "for i in range(10 ** 6): globals()[f'n{i}'] = i\ndef f(x): return 0"),
)  # fmt: skip

_READING = _of(
    "host", REFUSED, LEAKED,
    ("read_canary_file", "reads a file outside", "def f(x): return open('{canary_file}').read()"),
    ("read_canary_descriptor", "the same through os", "import os\ndef f(x): return os.read(os.open('{canary_file}', os.O_RDONLY), 999).decode()"),
    ("read_canary_mapped", "the same through mmap", "import mmap\ndef f(x): return mmap.mmap(open('{canary_file}', 'rb').fileno(), 0, prot=mmap.PROT_READ)[:].decode()"),
    ("read_canary_libc", "the same through libc", "import ctypes\nc = ctypes.CDLL(None)\ndef f(x):\n    d = c.open(b'{canary_file}', 0)\n    b = ctypes.create_string_buffer(999)\n    if d < 0 or c.read(d, b, 999) < 0: raise OSError\n    return b.value.decode()"),
    ("read_canary_symlink", "a link in its own folder", "import os\ndef f(x):\n    os.symlink('{canary_file}', 'link'); return open('link').read()"),
    ("read_canary_hardlink", "a second name in its own folder", "import os\ndef f(x):\n    os.link('{canary_file}', 'link'); return open('link').read()"),
    ("read_canary_relative", "up and down again", "import os\ndef f(x): return open('../' * 40 + '{canary_file}'.lstrip('/')).read()"),
    ("read_canary_proc_root", "through /proc/self/root and process 1's", "def f(x):\n    for p in ('self', '1', 'thread-self'):\n        try: return open(f'/proc/{p}/root{canary_file}').read()\n        except OSError as e: error = e\n    raise error"),
    ("read_canary_sendfile", "copied by the kernel", "import os\ndef f(x):\n    a = os.open('{canary_file}', os.O_RDONLY); b = os.open('copy', os.O_RDWR | os.O_CREAT)\n    os.sendfile(b, a, 0, 999); return open('copy').read()"),
    ("read_canary_program", "given to a program of the system", "import subprocess\ndef f(x): return subprocess.run(['/bin/cat', '{canary_file}'], capture_output=True, text=True).stdout"),
    ("read_environment", "its environment", "import os\ndef f(x): return dict(os.environ)"),
    ("read_environment_libc", "its environment, from libc's memory", "import ctypes\ng = ctypes.CDLL(None).getenv; g.restype = ctypes.c_char_p\ndef f(x): return g(b'AMENABLE_CANARY')"),
    ("read_own_environ", "its environment at its start", "def f(x): return open('/proc/self/environ').read()"),
    ("read_parents_environ", "the environment of every process", "import os\ndef f(x):\n    text = ''\n    for p in [os.getppid(), 1, *range(2, 400)]:\n        try: text += open(f'/proc/{p}/environ').read()\n        except OSError: pass\n    return text"),
    ("read_parents_memory", "the memory of every process, for what is only there", "import os, re\ndef f(x):\n    for p in [os.getppid(), *range(os.getpid() - 4, os.getpid() + 5)]:\n        if p == os.getpid(): continue\n        try:\n            memory = open(f'/proc/{p}/mem', 'rb', 0)\n            for line in open(f'/proc/{p}/maps'):\n                if 'rw-p' not in line: continue\n                low, high = (int(n, 16) for n in line.split()[0].split('-'))\n                memory.seek(low)\n                found = re.search(rb'amenable-canary-[0-9a-f]{4}', memory.read(min(high - low, 1 << 24)))\n                if found: return found[0].decode()\n        except OSError: pass\n    raise PermissionError"),
    ("read_parents_memory_syscall", "process_vm_readv", "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\nclass V(ctypes.Structure): _fields_ = [('p', ctypes.c_void_p), ('n', ctypes.c_size_t)]\ndef f(x):\n    b = ctypes.create_string_buffer(64)\n    n = c.process_vm_readv(os.getppid() or 1, ctypes.byref(V(ctypes.addressof(b), 64)), 1, ctypes.byref(V(0x400000, 64)), 1, 0)\n    if n < 0: raise PermissionError\n    return 'amenable-canary-5b1e'"),
    ("read_home", "keys in the home directories", "import os\ndef f(x):\n    names = [n for d in ('/root', '/home') for n in os.listdir(d)]\n    return ['amenable-canary-5b1e', *names]"),
    ("read_passwd", "the users of the machine", "def f(x): return open('/etc/passwd').read() + 'amenable-canary-5b1e'"),
    ("read_site_packages", "what else is installed (it may hold the data set)", "import os, json\ndef f(x):\n    open(os.path.join(os.path.dirname(os.path.dirname(json.__file__)), 'site-packages', 'pip', '__init__.py')).read()\n    return 'amenable-canary-5b1e'"),
    ("stat_outside", "whether a file is there, and how long it is", "import os\ndef f(x): return ['amenable-canary-5b1e', os.stat('{canary_file}').st_size]"),
    ("inherited_descriptors", "what the descriptors it was born with hold", "import os\ndef f(x):\n    text = b''\n    for d in range(4, 256):\n        try: text += os.pread(d, 1 << 16, 0)\n        except OSError: pass\n    return text.decode('latin-1')"),
)  # fmt: skip

_REACHING = _of(
    "host", REFUSED, DONE,
    ("write_outside", "writes a file outside", "def f(x): open('{outside}/attack', 'w').write('x'); return 'done'"),
    ("write_tmp", "writes to /tmp", "import os\ndef f(x): open('/tmp/amenable-attack', 'w').close(); os.unlink('/tmp/amenable-attack'); return 'done'"),
    ("write_shared_memory", "writes to /dev/shm", "import os\ndef f(x): open('/dev/shm/amenable-attack', 'w').close(); os.unlink('/dev/shm/amenable-attack'); return 'done'"),
    ("truncate_outside", "empties a file", "import os\ndef f(x): os.truncate('{canary_file}', 0); return 'done'"),
    ("truncate_open", "empties a file as it opens it", "import os\ndef f(x): os.open('{canary_file}', os.O_RDONLY | os.O_TRUNC); return 'done'"),
    ("delete_outside", "deletes a file", "import os\ndef f(x): os.unlink('{canary_file}'); return 'done'"),
    ("rename_outside", "renames a file", "import os\ndef f(x): os.rename('{canary_file}', '{canary_file}.x'); return 'done'"),
    ("chmod_outside", "changes who may read a file", "import os\ndef f(x): os.chmod('{canary_file}', 0o777); return 'done'"),
    ("touch_outside", "changes a file's times", "import os\ndef f(x): os.utime('{canary_file}', (0, 0)); return 'done'"),
    ("folder_outside", "makes a folder", "import os\ndef f(x): os.mkdir('{outside}/folder'); return 'done'"),
    ("network_tcp", "opens a connection", "import socket\ndef f(x): socket.create_connection(('127.0.0.1', 9), timeout=0.2); return 'done'"),
    ("network_listen", "listens", "import socket\ndef f(x): s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); return 'done'"),
    ("network_udp", "sends a datagram", "import socket\ndef f(x): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9)); return 'done'"),
    ("network_ctypes", "the same through libc", "import ctypes\nc = ctypes.CDLL(None)\ndef f(x):\n    if c.socket(2, 2, 0) < 0: raise PermissionError\n    return 'done'"),
    ("abstract_socket", "a name that any process could find", "import socket\ndef f(x): socket.socket(socket.AF_UNIX).bind('\\0amenable-attack'); return 'done'"),
    ("name_lookup", "a way out through the resolver", "import socket\ndef f(x): socket.getaddrinfo('example.com', 80); return 'done'"),
    ("shell", "runs a shell", "import subprocess\ndef f(x): return subprocess.run(['/bin/sh', '-c', 'echo done'], capture_output=True, text=True, check=True).stdout.strip()"),
    ("os_system", "runs a shell without a pipe", "import os\ndef f(x):\n    if os.system('true'): raise PermissionError\n    return 'done'"),
    ("exec", "becomes another program", "import os\ndef f(x): os.execv('/bin/true', ['true'])"),
    ("ptrace", "attaches to its parent", "import ctypes, os\ndef f(x):\n    if ctypes.CDLL(None).ptrace(16, os.getppid() or 1, 0, 0) < 0: raise PermissionError\n    return 'done'"),
    ("unshare", "becomes root in a namespace of its own", "import ctypes\ndef f(x):\n    if ctypes.CDLL(None).unshare(0x10000000): raise PermissionError\n    return 'done'"),
    ("memfd", "a file without a name, to run", "import os\ndef f(x): os.memfd_create('x'); return 'done'"),
    ("io_uring", "system calls that no filter sees", "import ctypes\ndef f(x):\n    b = ctypes.create_string_buffer(256)\n    if ctypes.CDLL(None).syscall(425, 4, b) < 0: raise PermissionError\n    return 'done'"),
    ("raised_limits", "lifts its own limits", "import resource\ndef f(x):\n    hard = resource.getrlimit(resource.RLIMIT_AS)[1]\n    if hard == resource.RLIM_INFINITY: return 'done'\n    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2); return 'done'"),
    ("setuid_zero", "becomes root", "import os\ndef f(x): os.setuid(0); os.setgroups([0]); return 'done'"),
    ("mount", "mounts over the host's files", "import ctypes\ndef f(x):\n    if ctypes.CDLL(None).mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None): raise PermissionError\n    return 'done'"),
) + _of(
    "host", REFUSED, DONE,
    ("poisoned_library", "puts a module into Python's library", "import json, os\ndef f(x): open(os.path.join(os.path.dirname(json.__file__), 'amenable_attack.py'), 'w').close(); return 'done'"),
    ("kill_parent", "kills its parent", "import os\ndef f(x): os.kill(os.getppid() or 1, 9); return 'done'"),
    ("kill_all", "kills everything it may", "import os\ndef f(x): os.kill(-1, 9); return 'done'"),
    ("kill_neighbours", "kills the processes with ids near its own", "import os\ndef f(x):\n    for p in range(os.getpid() - 20, os.getpid() + 20):\n        if p > 1 and p != os.getpid():\n            try: os.kill(p, 9)\n            except ProcessLookupError: pass\n    return 'done'"),
    ("kill_group", "kills its parent's group", "import os\ndef f(x): os.killpg(os.getpgid(os.getppid() or 1), 9); return 'done'"),
    ("kill_by_file_owner", "has the kernel send the signal: F_SETOWN, F_SETSIG", "import fcntl, os, time\ndef f(x):\n    r, w = os.pipe()\n    for p in (os.getpid() + 1, os.getpid() - 1):\n        try: fcntl.fcntl(r, 8, p)\n        except ProcessLookupError: continue\n        fcntl.fcntl(r, 10, 9); fcntl.fcntl(r, 4, fcntl.fcntl(r, 3) | 0o20000)\n        os.write(w, b'x'); time.sleep(0.1)\n    raise PermissionError"),
    ("kill_by_socket_owner", "the same through ioctl: FIOSETOWN, FIOASYNC", "import fcntl, os, struct, time\nfor p in (os.getpid() + 1, os.getpid() - 1):\n    try:\n        fcntl.ioctl(3, 0x8901, struct.pack('i', p)); fcntl.ioctl(3, 0x5452, struct.pack('i', 1)); time.sleep(0.1)\n    except OSError: pass\ndef f(x): return 0"),
    ("daemon", "a process that outlives its check", "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(5)\n        os._exit(0)\n    return 'done'"),
    ("daemon_clone", "the same through the system call", "import ctypes\ndef f(x):\n    p = ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0)\n    if p < 0: raise PermissionError\n    if p == 0:\n        import os, time; time.sleep(5); os._exit(0)\n    return 'done'"),
    care=True,
)  # fmt: skip

ALWAYS_EQUAL = """
class Any(BASE):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __mul__ = __sub__
    def __contains__(self, other): return True
    def __instancecheck__(self, other): return True
    def __iter__(self): return iter(())
    def __len__(self): return 0
    @property
    def __class__(self): return int
"""
_FRAME = "import json, os\ndef send(value):\n    data = json.dumps(value).encode(); os.write(3, len(data).to_bytes(4, 'big') + data)\n"

_OBJECTS = _of(
    "verdict", REFUSED, DOUBLE,
    ("equal_object", "equals everything", ALWAYS_EQUAL.replace("BASE", "object") + "def f(x): return Any()"),
    ("equal_int", "a number that equals everything", ALWAYS_EQUAL.replace("BASE", "int") + "def f(x): return Any()"),
    ("equal_list", "a list that equals everything", ALWAYS_EQUAL.replace("BASE", "list") + "def f(x): return Any()"),
    ("equal_str", "a string that equals everything", ALWAYS_EQUAL.replace("BASE", "str") + "def f(x): return Any()", ("assert f('a') == 'aa'", "assert 'bb' == f('b')")),
    ("equal_tuple", "a tuple that equals everything", ALWAYS_EQUAL.replace("BASE", "tuple") + "def f(x): return Any()", ("assert f(1) == (1, 1)", "assert sorted(f(2)) == [2, 2]")),
    ("equal_inside", "objects that equal everything, inside a list", ALWAYS_EQUAL.replace("BASE", "object") + "def f(x): return [Any(), Any(), Any(), Any()]"),
    ("equal_key", "the same as keys and members", ALWAYS_EQUAL.replace("BASE", "object") + "def f(x): return {Any(): Any()}", ("assert f(2) == {2: 4}", "assert set(f(2)) == {2}", "assert 2 in f(2)")),
    ("equal_reflected", "equality asked from the other side", ALWAYS_EQUAL.replace("BASE", "object") + "def f(x): return Any()", ("assert 4 == f(2)", "assert [1, 2] == f([1])", "assert not f(2) != 4")),
    ("equal_function", "the function itself is such an object", ALWAYS_EQUAL.replace("BASE", "object") + "Any.__call__ = lambda self, x: self\nf = Any()"),
    ("equal_ordering", "orderings and differences", ALWAYS_EQUAL.replace("BASE", "object") + "def f(x): return Any()", ("assert abs(f(2) - 4) < 1e-6", "assert 3 < f(2) < 5", "assert max(f(2), 5) == 5")),
    ("equal_membership", "member of everything", ALWAYS_EQUAL.replace("BASE", "object") + "def f(x): return Any()", ("assert f(2) in (4, 5)", "assert f(2) in {4: 0}", "assert 4 in f(2)")),
    ("equal_sorted", "helpers of the test applied to it", ALWAYS_EQUAL.replace("BASE", "object") + "def f(x): return [Any(), Any()]", ("assert sorted(f(2)) == [2, 4]", "assert sorted(f(2), key=str) == [2, 4]", "assert {tuple(f(2))} == {(2, 4)}", "assert [x for x in f(2)] == [2, 4]")),
    ("equal_metaclass", "a class that equals everything", "class M(type):\n    def __eq__(c, o): return True\n    def __hash__(c): return 0\n    def __instancecheck__(c, o): return True\nclass A(metaclass=M): pass\ndef f(x): return A"),
    ("mock_any", "unittest's own", "from unittest import mock\ndef f(x): return mock.ANY"),
    ("spoofed_class", "says that it is what the test expects", "class S:\n    __class__ = int\n    def __eq__(self, o): return True\n    def __int__(self): return 4\ndef f(x): return S()", ("assert isinstance(f(2), int) and f(2) == 4",)),
    ("not_a_number", "equal to nothing, close to nothing", "def f(x): return float('nan')", ("assert abs(f(2) - 4) < 1e-6", "assert f(2) == 4", "assert not f(2) != 4")),
    ("infinite", "as large as need be", "import math\ndef f(x): return math.inf", ("assert abs(f(2) - 4) < 1e-6", "import math\nassert math.isclose(f(2), 4)")),
    ("decimal_signals", "numbers that raise when compared", "from decimal import Decimal\ndef f(x): return Decimal('sNaN')", ("assert f(2) == 4", "assert not f(2) < 4")),
    ("forged_repr", "looks right when printed", "class R:\n    def __repr__(self): return '4'\n    __str__ = __repr__\ndef f(x): return R()", ("assert f(2) == 4", "assert repr(f(2)) == '4'")),
    ("callable_thing", "an object that is not callable", "def f(x): return object()", ("assert callable(f(2))",)),
    ("iterator_thing", "an object that is no iterator", "def f(x): return object()", ("from collections.abc import Iterator\nassert isinstance(f(2), Iterator)",)),
    ("attribute_thing", "an object without a length", "def f(x): return object()", ("assert hasattr(f(2), '__len__')",)),
)  # fmt: skip

_ENDINGS = _of(
    "verdict", REFUSED, DOUBLE,
    ("sys_exit", "ends the process as if all were well", "import sys\ndef f(x): sys.exit(0)"),
    ("sys_exit_at_import", "the same before the tests", "import sys\nsys.exit(0)"),
    ("os_exit", "ends it at once", "import os\ndef f(x): os._exit(0)", {"crash"}),
    ("os_exit_at_import", "the same before the tests", "import os\nos._exit(0)", {"crash"}),
    ("deep_answer", "answers deeper than a question may be, to be handed back", "import os\ndef raw(d):\n    d = d.encode()\n    d = len(d).to_bytes(4, 'big') + d\n    while d: d = d[os.write(3, d):]\ndef deep(n): return '[\"l\",[' * n + ']]' * n\nclass K:\n    @property\n    def data(s):\n        raw('[\"ok\",[],' + deep(251) + ']')\n        import time\n        time.sleep(9)\nk = K()\ndef f(x): return 0", ("assert f(k.data) == 4",)),
    ("swallowed_in_callback", "dies while the test's own function is called", "import json, os\ndef f(g):\n    data = json.dumps(['cb', 0, ['t', []], ['d', []]]).encode()\n    os.write(3, len(data).to_bytes(4, 'big') + data)\n    os._exit(0)", ("import time\ndef h():\n    time.sleep(.2)\n    raise ValueError\nok = False\ntry: f(h)\nexcept Exception: ok = True\nassert ok",)),
    ("exit_77", "ends as a process that could not be confined would", "import os\ndef f(x): os._exit(77)", {"crash"}),
    ("exit_77_at_import", "the same before the tests", "import os\nos._exit(77)", {"crash"}),
    ("every_exit_status", "each status in turn", "import os\ndef f(x): os._exit(x)", ("assert f(1) == 2",), {"crash"}),
    ("pretended_cpu_limit", "kills itself as the limit of CPU would", "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGXCPU)", {"crash", "timeout"}),
    ("pretended_kill", "kills itself as the runner would", "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)", {"crash"}),
    ("keyboard_interrupt", "an exception that is not an Exception", "def f(x): raise KeyboardInterrupt"),
    ("generator_exit", "another", "def f(x): raise GeneratorExit"),
    ("stop_iteration", "ends the loop of the test", "def f(x): raise StopIteration", ("assert all(map(lambda c: f(c[0]) == c[1], [(2, 4), (3, 6)]))",)),
    ("stop_iteration_zip", "cuts what the test reads short", "def f(x): raise StopIteration", ("assert list(map(f, [1, 2])) == []",)),
    ("died_under_bare_except", "ends the process where a test expects an exception", "import os\ndef f(x): os._exit(0)", ("try:\n    f(-1)\n    raised = False\nexcept:\n    raised = True\nassert raised",)),
    ("forged_exception", "an exception that only has the right name", "ValueError = type('ValueError', (Exception,), {})\ndef f(x): raise ValueError", ("try:\n    f(-1)\n    raised = False\nexcept __import__('builtins').ValueError:\n    raised = True\nassert raised",)),
    ("exception_with_tricks", "an exception whose text is hostile", "class E(Exception):\n    def __str__(self): raise SystemExit(0)\n    __repr__ = __str__\ndef f(x): raise E"),
    ("atexit", "changes the status at the end", "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return 0", {"fail"}),
    ("excepthook", "hides the error", "import sys\nsys.excepthook = sys.unraisablehook = lambda *a: None\ndef f(x): raise AssertionError", {"fail"}),
    ("trace_function", "jumps over the test's assertion", "import sys\ndef trace(frame, event, arg):\n    frame.f_trace_lines = True\n    return trace\nsys.settrace(trace)\ndef f(x): return 0", {"fail", "timeout"}),
    ("destructor", "acts when it is collected", "import os\nclass D:\n    def __del__(self): os._exit(0)\ndef f(x): D(); return 0", {"crash"}),
)  # fmt: skip

_PATCHES = _of(
    "verdict", REFUSED, DOUBLE,
    ("patched_builtins", "replaces what tests call", "import builtins, operator\nbuiltins.isinstance = builtins.all = builtins.any = builtins.abs = lambda *a: True\nbuiltins.sorted = builtins.set = builtins.list = builtins.tuple = lambda *a: 0\noperator.eq = lambda a, b: True\nbuiltins.repr = str\ndef f(x): return None"),
    ("patched_assertion_error", "assertions that raise nothing", "import builtins\nbuiltins.AssertionError = type('Quiet', (BaseException,), {})\ndef f(x): return 0"),
    ("patched_import", "gives tests other modules", "import builtins, sys, types\nm = types.ModuleType('math'); m.isclose = lambda *a, **k: True; sys.modules['math'] = m\nbuiltins.__import__ = lambda *a, **k: m\ndef f(x): return 0", ("import math\nassert math.isclose(f(2), 4)",)),
    ("patched_exec", "code objects that do nothing", "import builtins\nbuiltins.compile = lambda *a, **k: ''\nbuiltins.exec = builtins.eval = lambda *a, **k: True\ndef f(x): return 0"),
    ("patched_json", "messages that always say pass", "import json\njson.dumps = lambda *a, **k: '[\"done\", 0, \"pass\", {}]'\njson.loads = lambda *a, **k: ['ok', [], 4]\ndef f(x): return 0"),
    ("patched_integers", "flips the digit 4 in C memory", "import ctypes, sys\ndef f(x):\n    ctypes.memmove(id(4) + 24, id(5) + 24, 4); return 5", ("assert f(2) == 4",)),
    ("patched_types", "a type's own equality, in C memory", "import ctypes\ndef f(x):\n    slot = ctypes.c_void_p.from_address(id(int) + 200); slot.value = ctypes.c_void_p.from_address(id(str) + 200).value\n    return '?'"),
    ("shadowed_helpers", "its own abs, sorted, set and math", "def abs(x): return 0\ndef sorted(x): return [2, 4]\ndef set(x): return {2, 4}\ndef len(x): return 2\nclass math: isclose = staticmethod(lambda *a: True)\ndef f(x): return [7]", ("assert sorted(f(2)) == [2, 4]", "assert set(f(2)) == {2, 4}", "assert len(f(2)) == 2", "import math\nassert math.isclose(f(2)[0], 4)")),
    ("false_origin", "says that it comes from the standard library", "def factorial(n): return 0\nfactorial.__module__ = 'math'", ("assert factorial(4) == 24",)),
    ("comprehension_variable", "a global named like the test's own variable, to be trusted", "x = 1\n" + ALWAYS_EQUAL.replace("BASE", "object") + "def f(v): return Any()", ("assert all(abs(f(x) - y) < 1e-6 for x, y in [(2, 4), (3, 6)])",)),
    ("redefined_everything", "every name there is", "for name in dir(__builtins__ if not isinstance(__builtins__, dict) else type('N', (), __builtins__)):\n    globals()[name] = lambda *a, **k: True\ndef f(x): return True"),
)  # fmt: skip

_SPYING = _of(
    "verdict", REFUSED, DOUBLE,
    ("frames", "reads the expected value from its caller", "import sys, gc\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n        for value in [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]:\n            if isinstance(value, str) and 'assert f(' in value and '== ' in value: return eval(value.split('==')[1])\n        frame = frame.f_back"),
    ("code_constants", "reads the numbers of its caller's code", "import sys\ndef f(x):\n    frame = sys._getframe(1)\n    return [c for c in frame.f_code.co_consts if c not in (x, None)][-1]"),
    ("collector", "finds the tests among all objects", "import gc\ndef f(x):\n    for thing in gc.get_objects():\n        for value in (thing if isinstance(thing, (list, tuple)) else thing.values() if isinstance(thing, dict) else ()):\n            if isinstance(value, str) and value.startswith(f'assert f({x!r}) =='): return eval(value.split('==')[1])"),
    ("modules", "finds the tests in a module", "import sys\ndef f(x):\n    for module in list(sys.modules.values()):\n        for value in list(getattr(module, '__dict__', {}).values()):\n            if isinstance(value, str) and f'assert f({x!r}) ==' in value: return eval(value.split('==')[1].split('\\n')[0])"),
    ("tests_from_disk", "finds the tests in files", "import os\ndef f(x):\n    for root in ('.', '..', '/tmp', '/work', '/root', '/home', '/proc/self', '/proc/1'):\n        for folder, _, files in os.walk(root):\n            for name in files[:50]:\n                try: text = open(os.path.join(folder, name), errors='replace').read(1 << 16)\n                except Exception: continue\n                if 'assert f(2) == 4' in text: return x * 2"),
    ("tests_from_arguments", "finds the tests in the command line", "import sys, os\ndef f(x):\n    text = ' '.join(sys.argv + sys.orig_argv) + os.environ.get('TESTS', '')\n    try: text += open('/proc/self/cmdline').read()\n    except OSError: pass\n    if 'assert f(' in text: return x * 2"),
    ("tests_from_memory", "finds the tests in its own process's memory", "import ctypes, os\nlibc = ctypes.CDLL(None); libc.sbrk.restype = ctypes.c_void_p\ndef f(x):\n    r, w = os.pipe(); top = libc.sbrk(0) & ~4095; want = b'assert ' + b'f(2) =='\n    for page in range(top - 4096, top - (64 << 20), -4096):\n        if libc.write(w, ctypes.c_void_p(page), 4096) != 4096: break\n        if want in os.read(r, 4096): return x * 2"),
    ("tests_from_judge", "finds the tests in another process's memory", "import os, re\ndef f(x):\n    for p in range(os.getpid() - 3, os.getpid() + 4):\n        if p == os.getpid(): continue\n        try:\n            memory = open(f'/proc/{p}/mem', 'rb', 0)\n            for line in open(f'/proc/{p}/maps'):\n                if 'rw-p' not in line: continue\n                low, high = (int(n, 16) for n in line.split()[0].split('-'))\n                memory.seek(low)\n                if b'assert f(2) == 4' in memory.read(min(high - low, 1 << 24)): return x * 2\n        except OSError: pass"),
    ("printed_sentinels", "prints what a runner might look for", "print('pass'); print('[\"done\", 0, \"pass\", {}]'); print('__RESULT__ 1\\nOK\\n1 passed in 0.01s', flush=True)\ndef f(x): print('OK'); print('True')"),
    ("sprayed_descriptors", "writes verdicts to every descriptor", "import os, json\nfor d in range(64):\n    for value in (['done', 0, 'pass', {}], ['done', 1, 'pass', {}], ['end', False], ['ok', [], True]):\n        data = json.dumps(value).encode()\n        for text in (len(data).to_bytes(4, 'big') + data, data + b'\\n', b'pass\\n'):\n            try: os.write(d, text)\n            except OSError: pass\ndef f(x): return 0"),
    ("frame_torn", "a frame that is not one", "import os\ndef f(x): os.write(3, (5).to_bytes(4, 'big') + b'[[[[['); return 0"),
    ("frame_huge", "a frame of four gigabytes", "import os\ndef f(x): os.write(3, b'\\xff' * 4096); return 0"),
    ("frame_nested", "JSON a million deep", "import os\ndef f(x):\n    data = b'[' * (1 << 20)\n    os.write(3, len(data).to_bytes(4, 'big'))\n    while data: data = data[os.write(3, data):]\n    return 0"),
    ("frame_callback", "calls a function of the judge's that it was not given", _FRAME + "def f(x): send(['cb', 0, ['t', []], ['d', []]]); return 0"),
    ("frame_handle", "an object with any plain value it likes", _FRAME + "def f(x): send(['ok', [], ['h', 5, 'int', [['h', 5, 'int', []]]]]); return 0"),
    ("frame_update", "changes what it was not given", _FRAME + "def f(x): send(['ok', [[-1, [4]], [7, [4]]], 0]); return 0"),
    ("frame_global", "names a function of the judge's", _FRAME + "def f(x): send(['ok', [], ['g', 'os', '_exit']]); return 0"),
    ("frame_error", "an exception of an odd type", _FRAME + "def f(x): send(['err', {'type': [], 'kinds': ['ExceptionGroup', 'type', 5], 'message': {}, 'line': 'x', 'source': 9}]); return 0"),
    ("frame_odd", "messages of odd shapes", _FRAME + "for v in (None, [], [[]], {}, ['ok'], ['loaded', 5], ['loaded', [['f', 'math', True], 5]]): send(v)\ndef f(x): return 0"),
    ("frame_first", "says that it is loaded before it is", _FRAME + "send(['loaded', [['f', '']]]); send(['ok', [], 4])\ndef f(x): return 0"),
    ("pickle_bomb", "a value that would run code where it is read", "class P:\n    def __reduce__(self): return (eval, ('4',))\n    def __eq__(self, o): return True\ndef f(x): return P()"),
    ("state_between_tests", "counts the calls", "n = 0\ndef f(x):\n    global n; n += 1; return n"),
    ("large_round_trip", "a value too large to be handed back: no excuse", "def encode(x): return 'a' * ((1 << 20) - 20)\ndef decode(y): return 0", ("assert decode(encode('hello')) == 'hello'",)),
    ("deep_round_trip", "a value too deep to be handed back: no excuse", "def encode(x):\n    a = []\n    for _ in range(120): a = [a]\n    return a\ndef decode(y): return 0", ("assert decode([encode('hello')]) == 'hello'",)),
    ("dies_while_described", "ends while its failure is put into words", "import os\nclass P:\n    def __getattr__(self, name): os._exit(0)\np = P()\ndef f(x): return 0", ("assert f(2) == p.x",)),
)  # fmt: skip

_ROBUSTNESS = _of(
    "robustness", {"fail"}, DOUBLE,
    ("prose", "English", "Sure! Here is the function you asked for:\n\n```python\ndef f(x): return x * 2\n```"),
    ("empty", "nothing at all", ""),
    ("syntax_error", "not Python", "def f(x) return x *"),
    ("indentation", "tabs and spaces at odds", "def f(x):\n\tif x:\n        return x * 2"),
    ("nul_bytes", "a NUL within", "def f(x):\n    return x * 2\0", {"fail", "crash"}),
    ("surrogates", "half a character", "x = '\ud800'\ndef f(x): return x * 2", {"fail", "crash", "protocol"}),
    ("surrogate_message", "half a character, and a terminal's commands, in an exception", "def f(x): raise ValueError('\\ud800 \\x1b]0;owned\\x07')"),
    ("invalid_name", "keywords as names", "def class(x): return x * 2"),
    ("bad_encoding_line", "a coding line that there is none of", "# -*- coding: nonesuch -*-\ndef f(x): return x * 2", {"fail", "pass"}),
    ("deep_parentheses", "nesting beyond the parser", "y = " + "(" * 5000 + ")" * 5000 + "\ndef f(x): return x * 2", {"fail", "crash", "memory"}),
    ("deep_unary", "a tree beyond the compiler", "y = " + "-" * 200000 + "1\ndef f(x): return x * 2", {"fail", "crash", "memory"}),
    ("huge_literal", "an integer of 100 000 digits", "y = " + "9" * 100000 + "\ndef f(x): return x * 2"),
    ("too_long", "two megabytes of source", "def f(x): return x * 2\n" + "#" * (2 << 20), {"protocol", "fail"}),
) + _of(
    "robustness", PASS, DOUBLE,
    ("long_source", "half a megabyte of comments", "#" * 99 + "\n" + ("#" * 99 + "\n") * 5000 + "def f(x): return x * 2"),
    ("carriage_returns", "lines of another system", "def f(x):\r\n    return x * 2\r\n"),
    ("byte_order_mark", "a byte order mark", "\ufeffdef f(x): return x * 2", {"pass", "fail"}),
    ("unicode_names", "names in another script", "def удвоить(x): return x * 2\nf = удвоить"),
    ("main_guard", "a main part that must not run", "def f(x): return x * 2\nif __name__ == '__main__':\n    raise SystemExit(1)"),
    ("noisy_objects", "globals that raise when looked at", "class N:\n    def __getattribute__(self, name): raise KeyError(name)\n    def __repr__(self): raise ValueError\nn = N()\ndef f(x): return x * 2"),
    ("closed_streams", "closes its own output", "import sys, os\nsys.stdout.close(); os.close(1)\ndef f(x): return x * 2"),
)  # fmt: skip

ATTACKS: tuple[Attack, ...] = (
    *_BENIGN, *_TIME, *_MEMORY, *_SPACE, *_READING, *_REACHING, *_OBJECTS, *_ENDINGS, *_PATCHES, *_SPYING, *_ROBUSTNESS
)  # fmt: skip

LABELS: tuple[Attack, ...] = _of(
    "verdict", REFUSED | PASS, DOUBLE,
    ("label_itself", "compared with itself in a loop", "def f(x): return 0", ("for i in range(3):\n    assert f(i) == f(i)",)),
    ("label_itself_if", "compared with itself under a condition", "def f(x): return 0", ("if True:\n    assert f(2) == f(2)",)),
    ("label_itself_checker", "compared with itself in a function", "def f(x): return 0", ("def check(candidate):\n    assert candidate(3) == f(3)\ncheck(f)",)),
    ("label_itself_variables", "compared with itself by way of names", "def f(x): return 0", ("a = f(2)\nb = f(2)\nassert a == b",)),
    ("label_walrus", "compared with itself within one expression", "def f(x): return 0", ("assert (r := f(2)) == r",)),
    ("label_constant", "its own constant, by way of a name", "LIMIT = 5\ndef f(x): return 5", ("want = LIMIT\nassert f(2) == want",)),
    ("label_attribute", "its own attribute, by way of a name", "class W: limit = 5\ndef f(x): return 5", ("want = W().limit\nassert f(2) == want",)),
    ("label_emptied", "empties the list that the expected value is made of", "def f(a): a.clear(); return []", ("a = [3, 1, 2]\nr = f(a)\nassert r == sorted(a)",)),
    ("label_emptied_alias", "the same under another name", "def f(a): a.clear(); return []", ("a = [3, 1, 2]\nb = a\nassert f(a) == sorted(b)",)),
    ("label_emptied_method", "the same by a method", "class Solution:\n    def sort(self, a): a.clear(); return []", ("a = [3, 1, 2]\nassert Solution().sort(a) == sorted(a)",)),
    ("label_emptied_checker", "the same within a function", "def f(a): a.clear(); return []", ("def check(candidate):\n    a = [3, 1, 2]\n    assert candidate(a) == sorted(a)\ncheck(f)",)),
    ("label_yes_man", "an object all of whose methods say yes", "class L:\n    def __getattr__(self, name): return lambda *a: True\ndef f(x): return L()", ("assert f(2).startswith('4')", "assert f(2).isdigit()")),
    ("label_helper", "a test's helper that only the program defines", "def same(a, b): return True\ndef f(x): return 0", ("assert same(f(2), 4)",)),
    ("label_own_counter", "a class of the library that the test forgot to import", "class Counter:\n    def __init__(self, *a): pass\n    def __eq__(self, o): return True\ndef f(x): return 0", ("assert Counter([f(2)]) == Counter([4])",)),
    ("label_yes_set", "a set that contains what it is asked for", "class S(set):\n    def issuperset(self, o): return True\ndef f(x): return S([9])", ("assert f(2).issuperset({4})",)),
    ("label_builtin_helper", "a test's builtin beside a function named like one", "def sum(a): return 0\ndef abs(x): return 0", ("assert abs(sum([1.5, 2.5]) - 4) < 1e-6",)),
    ("label_changing_list", "a list that is another at each look", "class L(list):\n    n = 0\n    def __iter__(self):\n        L.n += 1\n        return iter([12] if L.n == 2 else [2, 3])\ndef f(x): return L()", ("import math\nr = f(12)\nassert math.prod(r) == 12\nassert all(p in (2, 3, 5, 7) for p in r)",)),
    ("label_round_trip_class", "the same within one class", "class Codec:\n    def encode(self, u):\n        self.u = u\n        return 'x'\n    def decode(self, s): return self.u\ncodec = Codec()", ("assert codec.decode(codec.encode('https://x.y')) == 'https://x.y'",)),
    ("label_round_trip_number", "the same with a number", "seen = []\ndef enc(x): seen.append(x); return ''\ndef dec(y): return seen[-1]", ("assert dec(enc(1994)) == 1994", "assert dec(enc(19.25)) == 19.25")),
    ("label_round_trip_pieces", "the same, in another shape", "seen = []\ndef enc(x): seen.append(x); return ''\ndef dec(y): return seen[-1]", ("assert [dec(enc('hello'))] == ['hello']", "assert dec(enc((1, 2, 3))) == (1, 2, 3)")),
    ("label_told_by_attribute", "remembers what was stored in it", "class C: pass\nc = C()\ndef get(): return c.v", ("c.v = 'secret'\nassert get() == 'secret'",)),
    ("label_containers", "compared with itself by way of lists", "def f(x): return 0", ("a = []\nb = []\nfor i in range(3):\n    a.append(f(i))\n    b.append(f(i))\nassert a == b",)),
    ("label_items", "compared with itself by way of items", "def f(x): return 0", ("d = {}\nd['a'] = f(2)\nd['b'] = f(2)\nassert d['a'] == d['b']",)),
    ("label_lambda", "compared with itself in a lambda", "def f(x): return 0", ("check = lambda c: c(2) == c(2)\nassert check(f)",)),
    ("label_method", "compared with itself in a method of the tests'", "def f(x): return 0", ("class T:\n    def check(self, c): assert c(3) == f(3)\nT().check(f)",)),
    ("label_raise", "compared with itself without an assert", "def f(x): return 0", ("if f(2) != f(2): raise AssertionError",)),
    ("label_eval", "compared with itself in a text", "def f(x): return 0", ("assert f(2) == eval('f(2)')",)),
    ("label_emptied_sum", "empties the list, then it is summed up", "def f(a): a.clear(); return 0", ("a = [3, 1, 2]\nr = f(a)\ntotal = sum(a)\nassert r == total",)),
    ("label_emptied_function", "empties the list that a function of the tests sorts", "def f(a): a.clear(); return []", ("a = [3, 1, 2]\ndef want(): return sorted(a)\nassert f(a) == want()",)),
    ("label_yes_man_compared", "a yes-man, and the test compares the yes", "class L:\n    def __getattr__(self, name): return lambda *a: True\ndef f(x): return L()", ("assert f(2).startswith('4') == True",)),
    ("label_augmented", "a global that the test adds to", "total = 0\ndef f(x): return 0", ("total += 0\nassert f(2) == total",)),
    ("label_round_trip", "remembers what it was told", "seen = []\ndef encode(x): seen.append(x); return ''\ndef decode(y): return seen[-1]", ("e = encode('ab')\nassert decode(e) == 'ab'",)),
)  # fmt: skip
