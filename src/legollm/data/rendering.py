"""Filling in a chat template, in Jinja's immutable sandbox; run as a program, for another process and under limits.

As a program it reads a request a line, {"template", "variables"}, and answers {"text"} or {"error"}. It imports nothing
of legollm, so that it starts quickly and has nothing worth reaching.
"""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT = 1 << 20
"""Characters that a template may write."""
SECONDS = 1.0
"""Time of the processor that one rendering may take where limits are set."""
MAX_MEMORY = 512 << 20
"""Bytes of the process where limits are set."""
BEGINS, ENDS = "generation_begins", "generation_ends"
"""Variables that stand where the assistant's words begin and end; empty unless somebody wants to know."""

FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""A program can do wrong what programs do."""


class Generation(Extension):
    """`{% generation %}`, which in templates of `transformers` encloses what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begins, ends = (nodes.Output([nodes.Name(name, "load")], lineno=line) for name in (BEGINS, ENDS))
        return [begins, *body, ends]


@lru_cache(maxsize=8)  # translating a template takes ten times as long as filling it in
def translated(template: str) -> Callable[..., Iterator[str]]:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template).generate


def refuse(reason: object) -> None:
    """What templates call for conversations they are not made for."""
    raise TemplateError(str(reason))


def fill(template: str, variables: Mapping[str, Any]) -> str:
    """
    Raises:
        FAILURES: what the template does wrong, writing more than MAX_OUTPUT included.
    """
    parts, n = [], 0
    for part in translated(template)(variables):
        n += len(part)
        if n > MAX_OUTPUT:
            raise ValueError(f"it writes more than {MAX_OUTPUT:,} characters")
        parts.append(part)
    return "".join(parts)


def reason_of(error: BaseException) -> str:
    """A failure in one line."""
    if isinstance(error, MemoryError):
        return f"it needs more than {MAX_MEMORY >> 20} MiB"
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    return " ".join(str(error).split())[:300] or type(error).__name__


def serve() -> None:
    """Answer requests until there are no more. What takes too long ends the process: even one long multiplication."""
    import resource  # not on every system, and not needed where nobody serves

    for kind, limit in {
        resource.RLIMIT_AS: MAX_MEMORY,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }.items():
        resource.setrlimit(kind, (limit, limit))
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            answer = {"text": fill(request["template"], request["variables"])}
        except FAILURES as error:
            answer = {"error": reason_of(error)}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
