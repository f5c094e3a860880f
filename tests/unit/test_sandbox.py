"""What code behind the fence can do, and over sixty ways of getting out that have to fail.

Where the kernel lacks the fence, there is nothing to get out of: then all that is tested is that nothing is run.
"""

import os
import socket
import sysconfig
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import legollm
from legollm.errors import VerifierError
from legollm.verifiers import Verdict
from legollm.verifiers.code import CodeVerifier, cases_of, code_in
from legollm.verifiers.sandbox import RINGS, Outcome, SandboxConfig, level, missing_rings, run_code

FREE = SandboxConfig(allow_unsandboxed_code=True, seconds=10)
SHORT = SandboxConfig(seconds=0.25)


@pytest.fixture(scope="module", autouse=True)
def fenced() -> None:
    if level() == "none":
        pytest.skip(f"this machine has no fence: {missing_rings()}; tests/unit/test_sandbox_level.py covers that")


def value(code: str, case: str, cfg: SandboxConfig | None = None) -> str:
    (result,) = run_code(code, [case], cfg).results
    return result.get("value") or result["error"]


def test_code_computes_prints_and_imports_what_is_standard() -> None:
    outcome = run_code(
        "import math, json, re, random, collections, decimal\nprint('here')", ["math.gcd(12, 18)", "1/0"]
    )
    assert outcome == Outcome([{"value": "6"}, {"error": "ZeroDivisionError: division by zero"}], "here\n", "")


def test_files_are_written_into_a_place_that_is_gone_afterwards() -> None:
    code = "def write(n):\n    with open('note', 'w') as f: f.write('x' * n)\n    return len(open('note').read())"
    if level() == "full":
        assert value(code, "write(1000)") == "1000"
        assert value("import os", "(os.listdir('.'), set(os.environ) <= {'LC_CTYPE'})") == "([], True)"
    else:
        assert "PermissionError" in value(code, "write(1000)")


def test_an_error_in_the_code_is_that_of_every_case() -> None:
    assert run_code("def f(:", ["f(1)", "f(2)"]).results == [
        {"error": x} for x in ["SyntaxError: invalid syntax (answer.py, line 1)"] * 2
    ]
    assert value("raise SystemExit(0)", "1") == "SystemExit: 0"
    assert run_code("import os\nos._exit(0)", ["1"]).stopped == "the code ended the interpreter"


def installed() -> Path:
    """A file of a package that lies beside the standard library; our own source where there is none."""
    beside = Path(sysconfig.get_path("stdlib")) / "site-packages"
    return next(beside.rglob("*.py"), Path(legollm.__file__))


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Things that are worth reaching: a secret file, an open descriptor of it, servers that count who calls."""
    folder = tmp_path_factory.mktemp("outside")
    secret = folder / "secret"
    secret.write_text("SECRET", encoding="utf-8")
    descriptor = os.open(secret, os.O_RDWR)
    os.set_inheritable(descriptor, True)
    os.environ["LEGOLLM_TEST_SECRET"] = "SECRET"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
        tcp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0legollm-{os.getpid()}")
        named.bind(str(folder / "socket"))
        for server in (tcp, abstract, named):
            server.listen()
        yield {
            "parent": os.getpid(),
            "thread": threading.get_native_id(),
            "secret": str(secret),
            "folder": str(folder),
            "port": tcp.getsockname()[1],
            "source": legollm.__file__,
            "package": str(installed()),
            "home": str(Path.home()),
        }
    os.close(descriptor)
    del os.environ["LEGOLLM_TEST_SECRET"]
    assert secret.read_text(encoding="utf-8") == "SECRET"
    assert sorted(path.name for path in folder.iterdir()) == ["secret", "socket"]


HELP = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    if result < 0: raise OSError(ctypes.get_errno(), 'stopped')
    return 'ESCAPED'
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as s: s.connect(address)
    return 'ESCAPED'
def read(path): return open(path, 'rb').read(1) and 'ESCAPED'
def write(path):
    open(path, 'ab').write(b'x')
    return 'ESCAPED'
def do(code):
    exec(code, globals())
    return 'ESCAPED'
"""

PROBES = {
    "tcp": "connect(socket.AF_INET, ('127.0.0.1', PORT))",
    "udp": 'do(\'socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))\')',
    "ipv6": "do('socket.socket(socket.AF_INET6)')",
    "raw socket": "do('socket.socket(socket.AF_PACKET, socket.SOCK_RAW)')",
    "netlink": "do('socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)')",
    "abstract socket": "connect(socket.AF_UNIX, '\\0legollm-PARENT')",
    "named socket": "connect(socket.AF_UNIX, 'FOLDER/socket')",
    "socket pair": "do('socket.socketpair()')",
    "vsock": "do('socket.socket(40, socket.SOCK_STREAM)')",
    "name service": 'do(\'socket.getaddrinfo("localhost", 80)[0] and open("/etc/hosts").read()\')',
    "fork": "do('os.fork() or os._exit(0)')",
    "clone": "call(56, 17, 0, 0, 0, 0)",
    "clone3": "call(435, 0, 0)",
    "thread": "do('import threading; t = threading.Thread(target=print); t.start()')",
    "exec": 'do(\'os.execv("/bin/sh", ["sh", "-c", "echo ESCAPED"])\')',
    "subprocess": "do('import subprocess; subprocess.run([\"/bin/true\"], check=True)')",
    "spawn": 'do(\'os.posix_spawn("/bin/true", ["true"], {})\')',
    "system": "do('assert libc.system(b\"true\") == 0')",
    "memory file": "call(319, b'x', 0)",
    "exec of a descriptor": "call(322, 0, b'/bin/true', 0, 0, 0)",
    "shadow": "read('/etc/shadow')",
    "passwd": "read('/etc/passwd')",
    "hosts": "read('/etc/hosts')",
    "home": "do('os.listdir(\"HOME\")')",
    "root": "do('os.listdir(\"/\")')",
    "secret": "read('SECRET')",
    "by dots": "read('../../../../..SECRET')",
    "own source": "read('SOURCE')",
    "installed package": "read('PACKAGE')",
    "fence": "read(sys.argv[0])",
    "temporary files": "do('os.listdir(\"/tmp\")')",
    "own environment": "read('/proc/self/environ')",
    "parent's environment": "read('/proc/PARENT/environ')",
    "parent's memory": "read('/proc/PARENT/mem')",
    "own memory": 'do(\'f = open("/proc/self/mem", "r+b")\')',
    "own root": "read('/proc/self/rootSECRET')",
    "own descriptors": "do('os.listdir(\"/proc/self/fd\")')",
    "kernel settings": "read('/proc/sys/kernel/hostname')",
    "sys": "do('os.listdir(\"/sys\")')",
    "write there": "write('SECRET')",
    "new file there": "write('FOLDER/new')",
    "write to tmp": "write('/tmp/legollm-escaped')",
    "write to shared memory": "write('/dev/shm/legollm-escaped')",
    "change own program": "write(os.path.dirname(os.getcwd()) + '/answer.py')",
    "change the fence": "write(sys.argv[0])",
    "truncate": "do('os.truncate(\"SECRET\", 0)')",
    "remove": "do('os.remove(\"SECRET\")')",
    "rename": 'do(\'os.rename("SECRET", "here")\')',
    "chmod": "do('os.chmod(\"SECRET\", 0o777)')",
    "chown": "do('os.chown(\"SECRET\", 1, 1)')",
    "times": "do('os.utime(\"SECRET\", (1, 1))')",
    "attributes": 'do(\'os.setxattr("SECRET", "user.x", b"1")\')',
    "symbolic link": 'do(\'os.symlink("SECRET", "link"); print(open("link").read())\')',
    "hard link": 'do(\'os.link("SECRET", "link"); print(open("link").read())\')',
    "handle": "call(303, -100, b'SECRET', b'\\0' * 200, b'\\0' * 8, 0)",
    "openat2": "call(437, -100, b'SECRET', b'\\0' * 24, 24)",
    "new root": "do('os.chroot(\".\")')",
    "other folder": "do('os.chdir(\"/\")')",
    "named pipe": "do('os.mkfifo(\"pipe\")')",
    "device file": "do('os.mknod(\"device\", 0o020666, os.makedev(1, 1))')",
    "null device": "read('/dev/zero')",
    "random device": "read('/dev/random')",
    "terminal": "read('/dev/tty')",
    "trace the parent": "call(101, 16, PARENT, 0, 0)",
    "trace me": "call(101, 0, 0, 0, 0)",
    "read other memory": "call(310, PARENT, b'\\0' * 16, 1, b'\\0' * 16, 1, 0)",
    "write other memory": "call(311, PARENT, b'\\0' * 16, 1, b'\\0' * 16, 1, 0)",
    "kill the parent": "do('os.kill(PARENT, 0)')",
    "kill all": "do('os.kill(-1, 0)')",
    "kill a thread": "call(234, PARENT, THREAD, 0)",
    "process descriptor": "call(434, PARENT, 0)",
    "io_uring": "call(425, 8, b'\\0' * 120)",
    "bpf": "call(321, 0, b'\\0' * 72, 72)",
    "perf": "call(298, b'\\0' * 120, 0, -1, -1, 0)",
    "key": "call(248, b'user', b'x', b'y', 1, -3)",
    "keyctl": "call(250, 0, -3, 1)",
    "page faults": "call(323, 0)",
    "mount": "call(165, b'none', b'.', b'tmpfs', 0, 0)",
    "unmount": "call(166, b'.', 2)",
    "new mounts": "call(430, b'tmpfs', 0)",
    "unshare": "call(272, 0x10000000)",
    "other namespace": "call(308, 0, 0)",
    "setuid": "do('os.setuid(0)')",
    "setgroups": "do('os.setgroups([0])')",
    "capabilities": "call(126, b'\\x22\\x05\\x08\\x20\\0\\0\\0\\0', b'\\xff' * 24)",
    "more memory": "do('import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))')",
    "limits of the parent": "call(302, PARENT, 7, 0, b'\\0' * 16)",
    "new session": "do('os.setsid()')",
    "process group": "do('os.setpgid(0, 0)')",
    "scheduler": "do('os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))')",
    "nice": "do('os.nice(-5)')",
    "clock": "call(227, 0, b'\\0' * 16)",
    "host name": "do('socket.sethostname(\"x\")')",
    "kernel log": "call(103, 3, b'\\0' * 100, 100)",
    "module": "call(175, b'', 0, b'')",
    "shared memory": "call(29, 0, 4096, 0o1777)",
    "message queue": "call(240, b'x', 0o102, 0o600, 0)",
    "watch files": "call(253)",
    "watch everything": "call(300, 0, 0)",
    "another filter": "call(317, 1, 0, b'\\0' * 16)",
    "terminal input": "call(16, 0, 0x5412, b'x')",
    "other numbers": "call(0x40000000 + 39)",
    "open a listener": "do('s = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen()')",
}


STOPPED = (
    "PermissionError",
    "OSError",
    "gaierror",
    "ValueError: not allowed",
    "RuntimeError: can't start",
    "AssertionError",
)


@pytest.mark.parametrize("without", [(), ("namespaces",)], ids=["full", "without namespaces"])
def test_no_way_out(without: tuple[str, ...], outside: dict[str, object]) -> None:
    def filled(text: str) -> str:
        for name, what in outside.items():
            text = text.replace(name.upper(), str(what))
        return text

    outcome = run_code(HELP, [filled(probe) for probe in PROBES.values()], SandboxConfig(seconds=20), without)
    assert not outcome.stopped
    for name, result in zip(PROBES, outcome.results, strict=True):
        assert "error" in result, f"{name}: {result}"
        assert result["error"].startswith(STOPPED)
    assert len(PROBES) >= 30


def test_the_probes_would_get_out_where_there_is_no_fence(outside: dict[str, object]) -> None:
    tried = ("tcp", "abstract socket", "named socket", "fork", "thread", "subprocess", "memory file", "passwd", "home")
    tried += ("secret", "own source", "own memory", "pipe", "kill the parent", "symbolic link")
    probes = [PROBES[name] for name in tried if name in PROBES and name != "symbolic link"]
    for name, what in outside.items():
        probes = [probe.replace(name.upper(), str(what)) for probe in probes]
    outcome = run_code(HELP, probes, FREE, RINGS)
    assert [result.get("value", result) for result in outcome.results] == ["'ESCAPED'"] * len(probes)


OPENED = """
import os
opened = []
for fd in range(3, 64):
    try: opened.append(os.fstat(fd).st_size)
    except OSError: pass
"""


def test_nothing_is_inherited(outside: dict[str, object]) -> None:
    assert value(OPENED, "opened") == "[0]"  # the pipe for the reply
    assert value("import os", "os.environ.get('LEGOLLM_TEST_SECRET')") == "None"


def test_code_of_another_processor_mode_ends_the_process() -> None:
    code = """
        import ctypes, mmap
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20; int 0x80; ret: getpid by its 32-bit number
        run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        print(run())
    """
    outcome = run_code(textwrap.dedent(code), ["1"])
    assert (outcome.stopped, outcome.output) == ("the code ended the interpreter", "")


NO_ARE_HEARD = """
import signal
for number in (2, 15, 24): signal.signal(number, signal.SIG_IGN)
while True: pass
"""
FLOOD = """
import os
while True:
    for fd in range(3, 64):
        try: os.write(fd, b'x' * 100_000)
        except OSError: pass
"""
DEEP = """
import sys
sys.setrecursionlimit(10**9)
class A:
    def __repr__(self): return repr(self)
repr(A())
"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("while True: pass", "more than 0.25 s"),
        pytest.param("import time\ntime.sleep(99)", "more than 0.25 s", marks=pytest.mark.slow),
        (NO_ARE_HEARD, "more than 0.25 s"),
        pytest.param("import re\nre.match('(a+)+$', 'a' * 40 + '!')", "more than 0.25 s", marks=pytest.mark.slow),
        ("while True: print('x' * 100_000)", "more than 64 KiB"),
        pytest.param("import sys\nwhile True: sys.stderr.write('x' * 100_000)", "than 64 KiB", marks=pytest.mark.slow),
        (FLOOD, "more than 1024 KiB"),
        ("import ctypes\nctypes.string_at(0)", "ended the interpreter"),
        (DEEP, "ended the interpreter"),
        pytest.param("import os\nos.abort()", "ended the interpreter", marks=pytest.mark.slow),
    ],
)
def test_what_does_not_end_is_ended(code: str, why: str) -> None:
    outcome = run_code(code, ["1"], SHORT if "0.25 s" in why else SandboxConfig(seconds=20))
    assert why in outcome.stopped
    assert outcome.results == []
    assert len(outcome.output) <= 64 << 10


@pytest.mark.parametrize(
    "code",
    ["x = bytearray(4 << 30)", "import mmap\nmmap.mmap(-1, 4 << 30)", "x = []\nwhile True: x.append(' ' * 10**7)"],
)
def test_memory_has_an_end(code: str) -> None:
    assert any(name in value(code, "1") for name in ("MemoryError", "OSError"))


def test_the_place_to_write_has_an_end() -> None:
    code = "with open('big', 'wb') as f:\n    for i in range(64): f.write(b'0' * (1 << 20))"
    assert "Error" in value(code, "1")
    many = "for i in range(5000): open(f'{i}', 'w').write('x')"
    assert "Error" in value(many, "1")


FORGED = """
import os
for fd in range(3, 64):
    try: os.write(fd, %r)
    except OSError: pass
os._exit(0)
"""


@pytest.mark.parametrize(
    "reply",
    [
        b"cos\nsystem\n(S'touch /tmp/legollm-escaped'\ntR.",
        b'{"missing": {"landlock": "x"}}\n[]',
        b'[{"value": 1}]',
        b'[{"value": "1", "error": "2"}]',
        b'[{"value": "1"}, {"value": "1"}]',
        b"[" * 50_000,
        b"\xff\xfe",
        b"null",
    ],
)
def test_a_forged_reply_is_no_reply(reply: bytes) -> None:
    outcome = run_code(FORGED % reply, ["1"])
    assert outcome == Outcome([], "", "the code ended the interpreter")
    assert not Path("/tmp/legollm-escaped").exists()


# Unit tests


ADD = "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nDone."
TESTS = "assert add(2, 3) == 5\nassert add('a', 'b') == 'ab'\nassert [1] == add([], [1])\nassert add(1, 1) > 1"


def test_code_is_judged_by_its_tests() -> None:
    verify = CodeVerifier()
    assert verify("Write add.", ADD, TESTS).score == 1
    assert verify("Write add.", ADD.replace("+", "-"), TESTS) == Verdict(
        0.0, "0 of 4 tests pass; 'add(2, 3)' gave '-1'"
    )
    assert "1 of 2 tests pass" in verify("", "f = abs", "assert f(-1) == 1\nassert f(2) == 3").reason
    assert "NameError" in verify("", "", TESTS).reason
    assert (
        verify("", "def f(x): return {x: (1, [2.5, None])}", "n = 3\nassert f(n) == {3: (1, [2.5, None])}").score == 1
    )
    assert "stopped" in CodeVerifier(SHORT)("", "while True: pass", TESTS).reason


YES = """
class Yes:
    def __eq__(self, other): return True
    def __repr__(self): return 'Yes()'
def add(a, b): return Yes()
"""


@pytest.mark.parametrize(
    "cheat",
    [
        YES,
        "def add(a, b): raise SystemExit(0)",
        "import os\nos._exit(0)",
        "import gc\ndef add(a, b): return [x for x in gc.get_objects() if x == 5]",
        "def case_0(): return 5",
        "import builtins\nbuiltins.repr = lambda x: '4'\ndef add(a, b): return a - b",
    ],
)
def test_equality_is_decided_outside(cheat: str) -> None:
    assert CodeVerifier()("", cheat, "assert add(2, 3) == 5").score == 0


def test_tests_are_taken_apart() -> None:
    before, cases = cases_of("import math\nassert f(2) == 4\nassert math.isclose(f(.5), .25)\nassert not f(0)")
    assert before == "import math"
    assert [(case.expression, case.expected) for case in cases] == [
        ("f(2)", 4),
        ("bool(math.isclose(f(0.5), 0.25))", True),
        ("bool(not f(0))", True),
    ]
    for wrong, why in (("f(2)", "no assertion"), ("assert (", "no Python"), ("", "no assertion")):
        with pytest.raises(VerifierError, match=why):
            cases_of(wrong)


def test_the_last_fenced_block_is_the_code() -> None:
    assert code_in("```\na = 1\n```\nor\n```py\na = 2\n```") == "a = 2\n"
    assert code_in("```python\na = 3") == "a = 3"
    assert code_in("a = 4") == "a = 4"
