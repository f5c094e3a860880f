"""Published tests as they lie on disk: MMLU, HellaSwag, ARC and PIQA (which choice is likelier), GSM8K and HumanEval
(what is written). Each becomes items, in the wording of lm-evaluation-harness, so that figures compare."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from legollm.data.rows import fields_of, rows, text
from legollm.errors import ConfigError, DataError

LETTERS = "ABCD"


class Item(NamedTuple):
    """One question: what a model reads, and either choices or a reference."""

    question: str
    """As a person would ask it."""
    prompt: str
    """As it is asked in a text that goes on with the answer, after a space."""
    answer: str
    """What follows the prompt in a worked example; of code, the tests."""
    kind: str
    """A subject or the like, to count apart."""
    where: str
    """File and line."""
    choices: tuple[str, ...] = ()
    right: int = 0
    """Which of them."""
    entry_point: str = ""
    """Of code: the function that is tested."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A test, and how it is usually taken."""

    summary: str
    read: Callable[[Path], Iterator[Item]]
    """A file -> its items."""
    split: str
    """What is asked, by a part of the file's name."""
    shots_split: str | None = None
    """Where worked examples come from; null: there are none."""
    shots_of_kind: bool = False
    """Whether examples are of the same subject as the question."""
    suffix: str = ".jsonl"
    n_shots: int = 0
    instructions: str = ""
    """Stands before everything; {kind} is the subject."""
    stop: tuple[str, ...] = ()
    """What ends an answer in plain text."""
    stop_in_chat: tuple[str, ...] = ()
    """The same besides the end of a turn; of code nothing, because in an answer a function stands behind words."""
    max_new_tokens: int = 0
    """Of what is written; 0 where choices are compared."""
    verifier: str = ""
    """What checks what is written."""


def read_mmlu(path: Path) -> Iterator[Item]:
    """Question, four choices and a letter (Hendrycks et al. 2020, arXiv:2009.03300); the file names the subject."""
    subject = re.sub(r"_(dev|val|test)$", "", path.stem)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if len(row) != 6:
                    raise DataError(f"{where}: expected question, four choices and a letter, found {len(row)} fields")
                question, *choices, letter = row
                if letter not in LETTERS or not letter:
                    raise DataError(f"{where}: answer: {letter!r} is none of A, B, C, D")
                lines = [f"{name}. {choice}" for name, choice in zip(LETTERS, choices, strict=True)]
                prompt = "\n".join([question.strip(), *lines, "Answer:"])
                yield Item(prompt, prompt, letter, subject, where, tuple(LETTERS), LETTERS.index(letter))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}:{reader.line_num}: cannot be read as CSV: {error}") from error


def read_hellaswag(path: Path) -> Iterator[Item]:
    """Endings of scenes (Zellers et al. 2019, arXiv:1905.07830)."""
    for where, row in rows(path):
        endings = texts(row, "endings", where)
        right = whole_number(row, "label", where, below=len(endings))
        scene = f"{text(row, 'ctx_a', where)} {text(row, 'ctx_b', where).capitalize()}"
        prompt = without_marks(f"{text(row, 'activity_label', where)}: {scene}")
        choices = tuple(map(without_marks, endings))
        source = str(row.get("source_id", "")).partition("~")[0] or "hellaswag"
        yield Item(prompt, prompt, choices[right], source, where, choices, right)


def without_marks(said: str) -> str:
    """Without what WikiHow pages left in HellaSwag: [header], [title], [step]."""
    said = said.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", said).replace("  ", " ")


def read_arc(path: Path) -> Iterator[Item]:
    """School questions (Clark et al. 2018, arXiv:1803.05457), as published or as data sets hold them."""
    level = re.sub(r"(?i)[-_](train|dev|test|validation)$", "", path.stem)
    for where, row in rows(path):
        asked = row.get("question")
        if isinstance(asked, Mapping):  # as published: stem and choices in one
            stem, listed = text(asked, "stem", f"{where}: question"), asked.get("choices")
        else:
            stem, listed = text(row, "question", where), row.get("choices")
        if isinstance(listed, Mapping):
            names, choices = texts(listed, "label", f"{where}: choices"), texts(listed, "text", f"{where}: choices")
        elif isinstance(listed, list) and listed and all(isinstance(one, Mapping) for one in listed):
            names = [text(one, "label", f"{where}: choices[{i}]") for i, one in enumerate(listed)]
            choices = [text(one, "text", f"{where}: choices[{i}]") for i, one in enumerate(listed)]
        else:
            raise DataError(f"{where}: choices: expected a list of label and text, found {listed!r:.60}")
        key = text(row, "answerKey", where)
        if key not in names or len(names) != len(choices):
            raise DataError(f"{where}: answerKey: {key!r} is none of {', '.join(names)}")
        right = names.index(key)
        yield Item(stem, f"Question: {stem}\nAnswer:", choices[right], level, where, tuple(choices), right)


def read_piqa(path: Path) -> Iterator[Item]:
    """Two ways to reach a goal (Bisk et al. 2019, arXiv:1911.11641); the labels in the rows, or in NAME-labels.lst."""
    labels = path.with_name(f"{path.stem}-labels.lst")
    listed = labels.read_text(encoding="utf-8").split() if labels.is_file() else None
    for i, (where, row) in enumerate(rows(path)):
        if "label" not in row and listed is None:
            raise DataError(f"{where}: label: there is no such field, and no {labels.name} beside the file")
        if "label" not in row and listed is not None:
            if i >= len(listed):
                raise DataError(f"{labels}: {len(listed)} labels, and {path.name} has more rows; they belong together")
            row = {**row, "label": listed[i]}
        right = whole_number(row, "label", where, below=2)
        choices = (text(row, "sol1", where), text(row, "sol2", where))
        goal = text(row, "goal", where)
        yield Item(goal, f"Question: {goal}\nAnswer:", choices[right], "piqa", where, choices, right)


def read_gsm8k(path: Path) -> Iterator[Item]:
    """School sums in words; answers end in #### and the number (Cobbe et al. 2021, arXiv:2110.14168)."""
    for where, row in rows(path):
        answer = text(row, "answer", where)
        if "####" not in answer:
            raise DataError(f"{where}: answer: expected #### and a number at its end, found {answer[-40:]!r}")
        question = text(row, "question", where)
        yield Item(question, f"Question: {question}\nAnswer:", answer, "gsm8k", where)


def read_code(path: Path) -> Iterator[Item]:
    """Functions to be written, as HumanEval has them (Chen et al. 2021, arXiv:2107.03374): `check` calls them."""
    for where, row in rows(path):
        tests, entry = text(row, "test", where), text(row, "entry_point", where)
        if "def check(" not in tests:
            raise DataError(f"{where}: test: expected a function `check(candidate)`, found {tests[:40]!r}")
        if not entry.isidentifier():
            raise DataError(f"{where}: entry_point: {entry!r} is no name of a function")
        prompt = text(row, "prompt", where)
        asked = f"Write this function in Python:\n```python\n{prompt}```"
        yield Item(asked, prompt, tests, "code", where, entry_point=entry)


BENCHMARKS: Mapping[str, Benchmark] = {
    "mmlu": Benchmark(
        summary="questions of 57 subjects, a folder with dev, val and test, or one file",
        read=read_mmlu,
        split="test",
        shots_split="dev",
        shots_of_kind=True,
        suffix=".csv",
        n_shots=5,
        instructions="The following are multiple choice questions (with answers) about {kind}.\n\n",
    ),
    "hellaswag": Benchmark(summary="which ending fits a scene", read=read_hellaswag, split="val", shots_split="train"),
    "arc": Benchmark(
        summary="school questions, Easy or Challenge",
        read=read_arc,
        split="test",
        shots_split="train",
        shots_of_kind=True,
    ),
    "piqa": Benchmark(summary="which of two ways works", read=read_piqa, split="valid", shots_split="train"),
    "gsm8k": Benchmark(
        summary="school sums in words",
        read=read_gsm8k,
        split="test",
        shots_split="train",
        n_shots=5,
        stop=("Question:",),
        stop_in_chat=("Question:",),
        max_new_tokens=256,
        verifier="number",
    ),
    "code": Benchmark(
        summary="functions to write, as HumanEval has them, run in the sandbox",
        read=read_code,
        split="humaneval",
        stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        max_new_tokens=512,
        verifier="code",
    ),
}


def files_of(source: Path, suffix: str, part: str) -> list[Path]:
    """The file itself; of a folder those of one split: in a folder of that name, or with it in their names.

    Raises:
        DataError: no such file or folder, or none of that split in it.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    named = named_in(source, suffix, part)
    if not named:
        there = ", ".join(one.name for one in sorted(source.iterdir())[:8]) or "nothing"
        raise DataError(f"{source}: no file *{part}*{suffix} in it, found {there}; give the file itself, or split=NAME")
    return named


def named_in(folder: Path, suffix: str, part: str) -> list[Path]:
    """The files of one split in a folder, none if it has none."""
    if (folder / part).is_dir():
        return sorted((folder / part).glob(f"*{suffix}"))
    return sorted(path for path in folder.glob(f"*{suffix}") if part in path.stem.lower())


def read_items(
    benchmark: Benchmark, source: Path, split: str | None, kinds: Sequence[str] = (), n_items: int | None = None
) -> list[Item]:
    """The items of a split, of some kinds or all; n_items: the first so many of each file.

    Raises:
        DataError: a file of another shape; names line and field. Or nothing in it.
        ConfigError: a kind that the files do not have.
    """
    found: list[Item] = []
    there: set[str] = set()
    for path in files_of(source, benchmark.suffix, split or benchmark.split):
        items = list(benchmark.read(path))
        if not items:
            raise DataError(f"{path}: nothing in it")
        there |= {item.kind for item in items}
        found += [item for item in items if not kinds or item.kind in kinds][:n_items]
    if unknown := sorted({*kinds} - there):
        raise ConfigError(f"kinds: there is no {unknown[0]!r} in {source}; found {', '.join(sorted(there))}")
    return found


def shots_of(benchmark: Benchmark, source: Path, items: Sequence[Item], n_shots: int) -> dict[str, list[Item]]:
    """The worked examples for the items of each kind: the first n_shots that the split for them has, and that are not
    asked themselves.

    source: a folder or file with them, or the file of the items: then the folder it lies in, or the one above.

    Raises:
        DataError: there are none, or too few.
    """
    places = [source] if source.is_dir() else [source.parent, source.parent.parent]
    split = benchmark.shots_split or benchmark.split
    folder = next((one for one in places if named_in(one, benchmark.suffix, split)), places[0])
    examples = read_items(benchmark, folder, split)
    asked = {item.where for item in items}
    unasked = [one for one in examples if one.where not in asked]
    but = " that are not asked" if len(unasked) < len(examples) else ""
    found = {}
    for kind in sorted({item.kind for item in items}):
        own = [one for one in unasked if one.kind == kind or not benchmark.shots_of_kind]
        if len(own) < n_shots:
            raise DataError(
                f"{folder}: {len(own)} worked examples for {kind}{but}, and n_shots={n_shots}; ask for fewer"
            )
        found[kind] = own[:n_shots]
    return found


def before(benchmark: Benchmark, item: Item, shots: Sequence[Item]) -> str:
    """What the prompt of an item stands after: instructions and worked examples, each ended by an empty line."""
    instructions = benchmark.instructions.format(kind=item.kind.replace("_", " "))
    return instructions + "".join(f"{one.prompt} {one.answer}\n\n" for one in shots)


def texts(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    """The texts in a field that is a list of them.

    Raises:
        DataError: another kind of value, or none.
    """
    value = row.get(key)
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: {key}: expected a list of texts, found {value!r:.60}; the row has {fields_of(row)}")
    return [text({key: one}, key, where) for one in value]


def whole_number(row: Mapping[str, Any], key: str, where: str, *, below: int) -> int:
    """The number of a choice in a field, also where it is written as text.

    Raises:
        DataError: something else.
    """
    value = row.get(key)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise DataError(f"{where}: {key}: expected a whole number from 0 to {below - 1}, found {value!r:.60}")
    return value
