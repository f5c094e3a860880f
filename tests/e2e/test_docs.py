"""Everything the pages show is run: commands, code and files, and the outputs that are marked as such.

A page is followed from top to bottom in a folder of its own, where the demo has run, small, and book.txt lies ready.
What a block is decides what happens to it:

sh        each line is a `legollm` command, run in this process; `< FILE` is its standard input
python    executed; all blocks of a page share their names
text      not run; marked as an output, it must be what the block before it printed, `...` standing for anything
others    only with a file name: written there for the blocks that follow

Comments right above a block say what a reader does not need to know: `<!-- test: words KEY=VALUE ... -->` adds words to
its commands to make them small, `exit N` is the status they end with, `needs MODULE` skips the rest of the page where
an extra is not installed, `file NAME` and `output` are as above.
"""

import contextlib
import io
import json
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from legollm.cli import main
from legollm.data import world

ROOT = Path(__file__).parents[2]
LEDGER = "log.md"  # says what was, not what is
DOCS = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "bricks").glob("*.md")]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in DOCS if path.name != LEDGER)]
LONG = {
    "docs/add-a-part.md",
    "docs/architectures.md",
    "docs/inspect.md",
    "docs/model.md",
    "docs/path.md",
    "docs/preferences.md",
    "docs/quantisation.md",
    "docs/reinforcement.md",
    "docs/training.md",
    "docs/troubleshooting.md",
}
"""Pages whose commands take the longest, up to half a minute; for the patient."""
COVERED_ELSEWHERE = {"make run", "make test"}
BLOCK = re.compile(r"(?P<notes>(?:^<!-- test: [^\n]*-->\n)*)^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
NOTE = re.compile(r"^<!-- test: (\w+) ?(.*?) ?-->$", re.M)
NOTES = {"sh": {"words", "exit"}, "python": {"needs"}, "text": {"output"}}
DEMO = """
    data.read.world_bytes=400000 tokenizer.vocab_size=512 model.n_layers=1 model.n_heads=2 model.d_model=32
    model.d_head=16 model.d_ff=64 model.max_seq_len=1024 train.max_steps=10 train.eval_every=5 train.save_every=5
    train.eval_batches=2 sft.train.max_steps=4 sft.data.n_examples=64 sft.data.n_val=8 n_questions=12 sample_tokens=12
    grpo.train.max_steps=1 grpo.train.batch_size=4 grpo.grpo.n_prompts=2 grpo.grpo.group_size=2 grpo.data.n_tasks=8
    grpo.data.n_val=4
"""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    notes: dict[str, str]
    where: str
    line: int


def blocks_of(text: str, name: str) -> list[Block]:
    """The blocks of a page, in order; refuses whatever would go unnoticed."""
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        block = Block(match["language"], match["text"], dict(NOTE.findall(match["notes"])), f"{name}:{line}", line)
        known = NOTES.get(block.language, {"file"})
        assert block.notes.keys() <= known, f"{block.where}: {block.language} blocks know {known}"
        assert known != {"file"} or "file" in block.notes, f"{block.where}: neither run nor written; make it ```text"
        found.append(block)
    assert text.count("```") == 2 * len(found), f"{name}: a block that does not start at the margin"
    assert text.count("<!-- test:") == sum(len(block.notes) for block in found), f"{name}: a comment above no block"
    return found


def commands_of(block: Block) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The environment in front of each command and the command's words; comments are left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and shlex.join(words) not in COVERED_ELSEWHERE:
            in_front = list(takewhile(lambda word: re.match(r"[A-Z_]+=", word), words))
            words = words[len(in_front) :]
            assert words[0] == "legollm", f"{block.where}: cannot run {line!r}; make it ```text"
            yield dict(word.split("=", 1) for word in in_front), words[1:]


def run_commands(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for environment, words in commands_of(block):
        given = ""
        if words[-2:-1] == ["<"]:
            *words, _, name = words
            given = Path(name).read_text(encoding="utf-8")
        with monkeypatch.context() as here:
            here.setattr(sys, "stdin", io.StringIO(given))
            for name, value in environment.items():
                here.setenv(name, value)
            status = main([*words, *shlex.split(block.notes.get("words", ""))])
        assert status == int(block.notes.get("exit", "0")), f"{block.where}: legollm {shlex.join(words)}"


def run_python(block: Block, names: dict[str, Any]) -> None:
    if "needs" in block.notes:
        pytest.importorskip(block.notes["needs"])
    exec(compile("\n" * block.line + block.text, block.where.partition(":")[0], "exec"), names)


def same(expected: str, printed: str) -> bool:
    """Equal but for white space, and for what `...` stands for."""
    return OutputChecker().check_output(expected, printed, ELLIPSIS | NORMALIZE_WHITESPACE)


def follow(blocks: list[Block], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Do what a reader of the page would do, in the current folder."""
    names: dict[str, Any] = {"__name__": "docs"}
    printed = warned = ""
    for block in blocks:
        if block.language == "text":
            if "output" in block.notes:
                is_so = same(block.text, printed) or same(block.text, warned + printed)
                assert is_so, f"{block.where}: printed was\n{printed}"
            continue
        with warnings_of_the_program() as warnings:
            follow_one(block, names, monkeypatch)
        printed, warned = "".join(capsys.readouterr()), "".join(f"WARNING: {text}\n" for text in warnings)


def follow_one(block: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if block.language == "sh":
        run_commands(block, monkeypatch)
    elif block.language == "python":
        run_python(block, names)
    else:
        Path(block.notes["file"]).write_text(block.text, encoding="utf-8")


@contextlib.contextmanager
def warnings_of_the_program() -> Iterator[list[str]]:
    """What is warned of meanwhile; on a terminal it stands among what is printed, here it is the test's log."""
    texts: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    handler, logger = Kept(logging.WARNING), logging.getLogger("legollm")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has after `make run`, and a text of their own."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "book.txt").write_text("".join(world.corpus(1, 60_000, "train")), encoding="utf-8")
    (question,) = islice(world.questions(7, 0, 10_000, max_steps=1, split="val"), 1)
    row = {"prompt": f"{question.context}\n{question.question}", "answer": question.answer}
    (folder / "answers.jsonl").write_text(f"{json.dumps(row)}\n" * 4, encoding="utf-8")
    if (ROOT / "configs").is_dir():
        shutil.copytree(ROOT / "configs", folder / "configs")
    with contextlib.chdir(folder):
        assert main(["demo", *DEMO.split()]) == 0
    return folder


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if page in LONG else page for page in PAGES]
)
def test_what_the_page_shows_is_so(
    page: str, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = blocks_of((ROOT / page).read_text(encoding="utf-8"), page)
    shutil.copytree(material, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    follow(blocks, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("```\nx\n```", "make it ```text"),
        ("```json\n{}\n```", "make it ```text"),
        ("  ```sh\n  legollm --version\n  ```", "at the margin"),
        ("<!-- test: exit 2 -->\n\n```sh\nlegollm x\n```", "above no block"),
        ("<!-- test: skip -->\n```sh\nlegollm x\n```", "blocks know"),
        ("```sh\nls\n```", "cannot run"),
        ("```sh\nlegollm trian\n```", "legollm trian"),
        ("<!-- test: exit 1 -->\n```sh\nlegollm trian\n```", "legollm trian"),
        ("```python\nassert False, 'untrue'\n```", "untrue"),
        ("```python\nprint(1)\n```\n<!-- test: output -->\n```text\n2\n```", "page:5: printed was"),
    ],
)
def test_what_is_not_so_is_noticed(
    page: str, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match=re.escape(wrong)):
        follow(blocks_of(page, "page"), monkeypatch, capsys)


STAGES = ("tokenizer", "data", "model", "training", "generation", "finetuning", "preferences", "evaluation")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_why_how_what_to_read_and_what_it_cannot(stage: str) -> None:
    text = (ROOT / "docs" / f"{stage}.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (.+)$", text) == ["Why", "How", "Use it", "The code to read", "Limits"]
