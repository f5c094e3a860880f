"""The program around code that a model wrote: builds a fence about itself, then runs the code. sandbox.py starts it.

It is started as a fresh interpreter that knows nothing of this package (python -I -S fence.py FOLDER SETTINGS) and
answers with two lines of JSON on the descriptor that the settings name: what the fence lacks, and the results. The
fence has three rings, each of which holds alone against most of what could be tried:

namespaces  no network, no shared memory, one small file system in memory as the only place to write to
Landlock    of the file system only the standard library and system libraries, to read (Salaun 2017, landlock.io)
seccomp     of some 350 system calls the few that computing takes: no process, thread, socket, signal, exec, mount

Limits on memory, time, files and their sizes are set before; every right of the user is given up. Linux on x86-64.
"""

import ctypes
import importlib.util
import json
import os
import resource
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

UNSHARE = 0x10000000 | 0x00020000 | 0x40000000 | 0x08000000 | 0x04000000  # user, mount, net, ipc, uts
PRIVATE, NOSUID_NODEV_NOEXEC = 0x4000 | 0x40000, 2 | 4 | 8  # of mount(2)
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT, CAPSET = 444, 445, 446, 126
SET_PDEATHSIG, SET_DUMPABLE, SET_SECCOMP, SET_NO_NEW_PRIVS = 1, 4, 22, 38  # of prctl(2)

READ_FILE, READ_DIR = 1 << 2, 1 << 3
WRITE = (1 << 1) | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 14)  # files and folders: write, make, remove
FILE_RIGHTS = (1 << 1) | READ_FILE | (1 << 14)

ALLOWED = {
    "read": 0,
    "write": 1,
    "open": 2,
    "close": 3,
    "stat": 4,
    "fstat": 5,
    "lstat": 6,
    "poll": 7,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "pread64": 17,
    "pwrite64": 18,
    "readv": 19,
    "writev": 20,
    "access": 21,
    "select": 23,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "dup": 32,
    "nanosleep": 35,
    "getpid": 39,
    "exit": 60,
    "uname": 63,
    "fcntl": 72,
    "fsync": 74,
    "ftruncate": 77,
    "getdents": 78,
    "getcwd": 79,
    "rename": 82,
    "mkdir": 83,
    "rmdir": 84,
    "unlink": 87,
    "readlink": 89,
    "umask": 95,
    "gettimeofday": 96,
    "getrusage": 98,
    "times": 100,
    "getuid": 102,
    "getgid": 104,
    "geteuid": 107,
    "getegid": 108,
    "getppid": 110,
    "sigaltstack": 131,
    "gettid": 186,
    "time": 201,
    "futex": 202,
    "sched_getaffinity": 204,
    "getdents64": 217,
    "restart_syscall": 219,
    "fadvise64": 221,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "openat": 257,
    "mkdirat": 258,
    "newfstatat": 262,
    "unlinkat": 263,
    "readlinkat": 267,
    "faccessat": 269,
    "pselect6": 270,
    "ppoll": 271,
    "getrandom": 318,
    "statx": 332,
    "faccessat2": 439,
}
"""Every system call of x86-64 that is let through; all others fail with EPERM."""
ARCHITECTURE = 0xC000003E
KILL, FAIL, ALLOW = 0x80000000, 0x00050001, 0x7FFF0000  # FAIL is with EPERM


class Broken(Exception):
    """A ring that this machine does not give."""


def call(what: str, result: int) -> int:
    """The result of a system call.

    Raises:
        Broken: it failed.
    """
    if result < 0:
        raise Broken(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def namespaces(libc: ctypes.CDLL, work: Path, megabytes: int) -> None:
    """Leave the machine's network and mounts; `work` becomes a file system of its own, in memory."""
    uid, gid = os.getuid(), os.getgid()
    call("unshare", libc.unshare(UNSHARE))
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")
    except OSError as error:
        raise Broken(f"user namespace: {error.strerror}") from error
    call("mount /", libc.mount(b"none", b"/", None, ctypes.c_ulong(PRIVATE), None))
    options = f"size={megabytes}m,nr_inodes=512,mode=0700".encode()
    call("mount", libc.mount(b"tmpfs", bytes(work), b"tmpfs", ctypes.c_ulong(NOSUID_NODEV_NOEXEC), options))


def limits(settings: Mapping[str, Any]) -> None:
    """What can be used up, both as it is and as it can be set again."""
    for kind, value in (
        (resource.RLIMIT_AS, settings["memory_mb"] << 20),
        (resource.RLIMIT_DATA, settings["memory_mb"] << 20),
        (resource.RLIMIT_STACK, 16 << 20),
        (resource.RLIMIT_CPU, settings["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, settings["files_mb"] << 20),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def landlock_version(libc: ctypes.CDLL) -> int:
    """0 where the kernel has no Landlock."""
    return max(0, int(libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


def landlock(libc: ctypes.CDLL, readable: Iterable[Path], listed: Iterable[Path], work: Path | None) -> None:
    """Close the file system but for what is read: files or whole folders, folders to list, and where to write."""
    version = landlock_version(libc)
    if not version:
        raise Broken("Landlock: the kernel has none")
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    rules = (ctypes.c_uint64 * 3)(rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    fence = call("Landlock", libc.syscall(LANDLOCK_CREATE, ctypes.byref(rules), size, 0))
    grants = [(path, READ_FILE | READ_DIR) for path in readable] + [(path, READ_DIR) for path in listed]
    if work is not None:
        grants.append((work, READ_FILE | READ_DIR | WRITE))
    for path, wanted in grants:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this system
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            wanted &= FILE_RIGHTS
        rule = (wanted & rights).to_bytes(8, "little") + place.to_bytes(4, "little")
        call(f"Landlock, {path}", libc.syscall(LANDLOCK_ADD, fence, 1, ctypes.create_string_buffer(rule, 12), 0))
        os.close(place)
    call("Landlock", libc.syscall(LANDLOCK_RESTRICT, fence, 0))
    os.close(fence)


def libraries() -> tuple[list[Path], list[Path]]:
    """What Python reads after it has started: files and folders to read, and folders to list.

    Packages that were installed beside the standard library are not among it, this one included.
    """
    standard = Path(sysconfig.get_path("stdlib"))
    readable = [path for path in standard.iterdir() if path.name not in ("site-packages", "dist-packages")]
    readable.append(Path("/etc/ld.so.cache"))
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        _, slash, name = line.partition("/")
        library = Path(slash + name)
        if ".so" in library.name:
            own = library.parent in (standard, *standard.parents)  # then only the library itself
            readable.append(library if own else library.parent)
    return sorted(set(readable)), [standard]


def no_rights(libc: ctypes.CDLL) -> None:
    """Give up every capability, also those that a namespace gave, and die with whoever started this."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", libc.syscall(CAPSET, ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())))
    call("prctl", libc.prctl(SET_DUMPABLE, 0, 0, 0, 0))
    call("prctl", libc.prctl(SET_PDEATHSIG, 9, 0, 0, 0))


def seccomp(libc: ctypes.CDLL) -> None:
    """Let through the system calls of ALLOWED, and none that another processor would understand by their numbers."""
    if os.uname().machine != "x86_64" or sys.maxsize < 2**32:
        raise Broken(f"seccomp: the list of system calls is for x86-64, this is {os.uname().machine}")
    numbers = sorted(ALLOWED.values())
    load, equal, give = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, ARCHITECTURE), (give, 0, 0, KILL), (load, 0, 0, 0)]
    program += [(equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    program += [(give, 0, 0, FAIL), (give, 0, 0, ALLOW)]
    code = b"".join(a.to_bytes(2, "little") + bytes((yes, no)) + k.to_bytes(4, "little") for a, yes, no, k in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    described = (ctypes.c_uint64 * 2)(len(program), ctypes.addressof(buffer))
    call("seccomp", libc.prctl(SET_SECCOMP, 2, ctypes.byref(described), 0, 0))


def build(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """All rings, from the outside to the inside. What cannot be had is returned with the reason.

    Nothing runs inside an incomplete fence unless the settings allow it: that is decided in `main`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    work = folder / "work"
    missing: dict[str, str] = {}
    readable, listed = libraries()

    def ring(name: str, make: Callable[[], None]) -> None:
        if name in settings["without"]:
            missing[name] = "left out"
            return
        try:
            make()
        except Broken as error:
            missing[name] = str(error)

    ring("namespaces", lambda: namespaces(libc, work, settings["files_mb"]))
    os.chdir(work)
    limits({**settings, "files_mb": 0 if "namespaces" in missing else settings["files_mb"]})
    call("prctl", libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    own = None if "namespaces" in missing else work
    ring("landlock", lambda: landlock(libc, [*readable, folder / "answer.py"], [*listed, folder], own))
    no_rights(libc)
    ring("seccomp", lambda: seccomp(libc))
    return missing


def results(folder: Path, n_cases: int) -> list[dict[str, str]]:
    """The value of each case, or the error it ended with. An error in the code itself is that of every case."""
    spec = importlib.util.spec_from_file_location("answer", folder / "answer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    found: list[dict[str, str]] = []
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # also SystemExit: what a model writes may raise anything
        return [{"error": told(error)}] * n_cases
    for i in range(n_cases):
        try:
            found.append({"value": repr(vars(module)[f"case_{i}"]())})
        except BaseException as error:
            found.append({"error": told(error)})
    return found


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    sys.dont_write_bytecode = True
    missing = build(folder, settings)
    say(settings["reply"], missing)  # before the code runs, which could write there, too
    if not missing.keys() & set(settings["needed"]):
        found = results(folder, settings["n_cases"])
        sys.stdout.flush()
        say(settings["reply"], found)
    os._exit(0)


def say(descriptor: int, what: object) -> None:
    """One line of JSON."""
    data = memoryview(json.dumps(what).encode() + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main()
