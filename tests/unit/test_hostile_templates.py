"""Templates are programs of strangers: whatever they do wrong or too long is one line, and the next one works."""

import json
import os
import signal
from pathlib import Path

import pytest

from legollm.data import confined, rendering
from legollm.data.chat import Message, encode_chat
from legollm.data.confined import fill_confined, worker_of
from legollm.data.templates import OURS, TEMPLATES, read_template, template_for, template_of_folder
from legollm.errors import ConfigError, DataError
from legollm.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
HONEST = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
HI = [Message("user", "hi")]


@pytest.mark.parametrize(
    ("evil", "said"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ ''['__class__']['__base__'] }}", "unsafe"),
        ("{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", "unsafe"),
        ("{{ lipsum.__globals__['os'].getpid() }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content + 1 }}", "can only concatenate"),
        ("{{ raise_exception('only\nquestions') }}", "fails: only questions"),
        ("{% for %}", "Expected an expression"),
        ("{{ 'x' | nosuchfilter }}", "nosuchfilter"),
        ("{{ '%d' % 'x' }}", "format"),
        ("{{ 'a' * 10**9 }}", "needs more than 512 MiB"),
        ("{{ 'a' * 2 * 10**6 }}", "writes more than 1,048,576 characters"),
        ("{{ 'a' | center(10**9) }}", "needs more than 512 MiB"),
        ("{{ '%1000000000d' % 1 }}", "needs more than 512 MiB"),
        ("{% for i in range(9999) %}{{ 'a' * 999 }}{% endfor %}", "writes more than 1,048,576 characters"),
        ("{% macro a(n) %}{{ a(n) }}{% endmacro %}{{ a(1) }}", "calls itself without end"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "without end"),
        ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "without end"),
    ],
)
def test_a_template_that_breaks_out_or_fails_is_one_line(evil: str, said: str) -> None:
    with pytest.raises(DataError, match="the chat template fails: ") as found:
        encode_chat(TOKENIZER, HI, evil)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400
    assert any(part in str(found.value) for part in said.split("|"))
    assert TOKENIZER.decode(encode_chat(TOKENIZER, HI, HONEST)) == "user: hi\n"


@pytest.mark.parametrize("asked", ["'' | attr('__class__') | attr('__mro__')", "raise_exception.__globals__"])
def test_what_is_not_for_templates_is_not_there(asked: str) -> None:
    assert encode_chat(TOKENIZER, HI, f"{{{{ {asked} }}}}") == []


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", marks=pytest.mark.slow
        ),
        "{{ 7 ** (10 ** 8) > 1 }}",  # one operation, which no signal handler of Python would interrupt
    ],
)
def test_a_template_that_takes_too_long_is_ended(endless: str) -> None:
    with pytest.raises(DataError, match="the chat template fails: it takes more than 1 s"):
        encode_chat(TOKENIZER, HI, endless)
    assert TOKENIZER.decode(encode_chat(TOKENIZER, HI, HONEST)) == "user: hi\n"


def test_a_process_that_was_killed_or_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fill_confined("{{ x }}", {"x": "é\U000f0000\n"}) == "é\U000f0000\n"
    worker = worker_of(os.getpid())
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    with pytest.raises(DataError, match="the process that ran it ended with status -9"):
        fill_confined("x", {})
    assert fill_confined("x", {}) == "x"
    os.kill(worker_of(os.getpid()).process.pid, signal.SIGSTOP)
    monkeypatch.setattr(confined, "PATIENCE", 0.05)
    with pytest.raises(DataError, match="the process that ran it ended with status -9"):
        fill_confined("x", {})
    monkeypatch.undo()
    assert fill_confined("x", {}) == "x"


def test_what_it_runs_in_has_no_environment_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "letmein")
    worker_of.cache_clear()
    fill_confined("x", {})
    environment = Path(f"/proc/{worker_of(os.getpid()).process.pid}/environ")
    if not environment.exists():
        pytest.skip("no /proc on this system")
    assert b"letmein" not in environment.read_bytes()


def test_ours_run_here_and_whatever_differs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = ByteTokenizer()
    tokenizer.add_special_tokens(["</s>", "<|im_start|>", "<|im_end|>"])
    ran = []

    def noting(template: str, variables: object) -> str:
        ran.append(template)
        return "x"

    monkeypatch.setattr("legollm.data.chat.fill_confined", noting)
    for name in ("chatml", "qwen", "alpaca", "plain"):
        template = template_for(tokenizer, name)
        encode_chat(tokenizer, HI, template)
        assert not ran
        assert template in OURS
        encode_chat(tokenizer, HI, template + " ")
        assert ran.pop() == template + " "
    long = [Message("user", "a" * (rendering.MAX_OUTPUT + 1))]
    with pytest.raises(DataError, match="writes more than 1,048,576 characters"):
        encode_chat(tokenizer, long)


def test_a_template_of_megabytes_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="70,000 bytes; at most 65,536"):
        encode_chat(TOKENIZER, HI, "x" * 70_000)
    path = tmp_path / "long.jinja"
    path.write_text("x" * 10_000_000)
    with pytest.raises(DataError, match="at most 65,536 bytes"):
        read_template(path)


def test_files_that_are_no_templates(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'chatlm' is neither a file nor one of chatml, qwen, llama3, alpaca, plain"):
        template_for(TOKENIZER, "chatlm")
    path = tmp_path / "bad.jinja"
    path.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match="byte 0xff at 2 is not UTF-8"):
        read_template(path)
    path.write_text(HONEST)
    assert template_for(TOKENIZER, str(path)) == HONEST


def test_names_of_special_tokens_are_written_into_the_template_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "chat_template.jinja"
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    config = {"bos_token": "<s>", "eos_token": {"content": "</'\"s>"}, "pad_token": None, "chat_template": template}
    from_config = template_of_folder(path, config)
    assert from_config is not None
    assert rendering.fill(from_config, {"messages": [{"content": "a"}]}) == "<s>a</'\"s>"
    path.write_text(from_config)
    assert template_of_folder(path, config) == from_config
    assert template_of_folder(tmp_path / "other", {"chat_template": [{"name": "default"}]}) is None
    assert all(text == template_of_folder(path, config) for text in TEMPLATES.values() if path.write_text(text))


def test_filters_and_tags_that_templates_of_transformers_use() -> None:
    text = "{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ {'a': 'é<'} | tojson }}{% endfor %}"
    assert fill_confined(text, {}) == json.dumps({"a": "é<"}, ensure_ascii=False)
