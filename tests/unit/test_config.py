"""Configuration: what is written becomes the right value from the right place, or an error that helps."""

import dataclasses
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from legollm import config
from legollm.cli import VERBS, config_class, load_verb
from legollm.config.describe import docs_of, summary_of
from legollm.config.kinds import classes_in, hints_of
from legollm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A part that may be absent."""

    factor: float = 8.0
    """How far."""


@dataclass(frozen=True, kw_only=True)
class Wide:
    """One of two models."""

    arch: Literal["wide"] = "wide"
    """Which it is."""
    n_layers: int = 4
    """How deep."""
    n_heads: int = 4
    """A divisor of d_model."""
    d_model: int = 64
    """How wide."""
    tie: bool = True
    """Whether one table serves twice."""
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ConfigError(f"n_heads: {self.n_heads} does not divide d_model = {self.d_model}")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The other model, which has less to set."""

    arch: Literal["table"] = "table"
    """Which it is."""
    n_rows: int = 10
    """How long."""
    d_model: int = 8
    """How wide."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How text is cut."""

    SHORTHAND: ClassVar[str] = "kind"

    kind: str = "bpe"
    """The name of the way."""
    size: int = 512
    """How many pieces."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How steps are made."""

    lr: float = 1e-3
    """How far."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """How smoothly."""
    warmup: int | None = 10
    """How carefully."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """All of it."""

    run: Path = Path("runs/a")
    """Where to."""
    seed: int = 1
    """The luck."""
    bits: Literal[4, 8] = 8
    """How precise."""
    resume: Literal["auto", "never"] | int = "auto"
    """Where from."""
    prompt: str | None = None
    """What with."""
    stop: tuple[str, ...] = ()
    """When."""
    json: bool = False
    """How."""
    no: int = 0
    """A word that is false in YAML 1.1."""
    cut: Cut = field(default_factory=Cut)
    model: Wide | Table = field(default_factory=Wide)
    optim: Optim = field(default_factory=lambda: Optim(lr=5e-4, warmup=3))


PRESETS: dict[type, dict[str, Any]] = {
    Run: {
        "small": {"model": {"n_layers": 2, "d_model": 16}, "optim": {"lr": 0.25}, "cut": "char"},
        "named": {"model": {"preset": "deep", "n_heads": 2}},
    },
    Wide: {"deep": Wide(n_layers=48, scaling=Scaling(factor=2.0))},
    Table: {"long": Table(n_rows=1000)},
}

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def resolved(*words: str, path: Path | None = None) -> config.Resolved[Run]:
    return config.resolve(Run, config.read(path, words), presets=PRESETS)


def value(*words: str, path: Path | None = None) -> Run:
    return resolved(*words, path=path).value


def refusal(*words: str, path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        resolved(*words, path=path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Precedence


def test_nothing_given_is_the_defaults() -> None:
    assert value() == Run()


def test_default_preset_yaml_words_in_this_order(write: Write) -> None:
    path = write("preset: small\nmodel:\n  d_model: 32\n  n_heads: 8\noptim: {lr: 0.5}\n")
    run = resolved("model.n_heads=16", path=path)
    assert run.value.model == Wide(n_layers=2, d_model=32, n_heads=16)
    assert run.value.optim.lr == 0.5
    where = {key: origin.rpartition("/")[2] for key, origin in run.origins.items()}
    assert where["model.n_layers"] == "preset small"
    assert where["model.d_model"] == "run.yaml:3"
    assert where["model.n_heads"] == "command line"
    assert where["optim.lr"] == "run.yaml:5"
    assert where["seed"] == "default"


def test_the_last_word_wins() -> None:
    assert value("seed=2", "seed=3").seed == 3


def test_what_a_default_says_survives_its_neighbours() -> None:
    """Setting one key of a group once put the others back to the class's own defaults."""
    assert value("optim.betas=[0.5, 0.5]").optim == Optim(lr=5e-4, warmup=3, betas=(0.5, 0.5))


def test_a_nested_preset_is_above_the_outer_one_and_below_the_user() -> None:
    run = value("preset=small", "model.preset=deep", "model.n_heads=2")
    assert run.model == Wide(n_layers=48, n_heads=2, scaling=Scaling(factor=2.0))


def test_a_preset_may_name_a_preset() -> None:
    assert value("preset=named").model == Wide(n_layers=48, n_heads=2, scaling=Scaling(factor=2.0))


def test_a_presets_name_tells_the_architecture() -> None:
    assert value("model.preset=long").model == Table(n_rows=1000)


def test_a_preset_that_does_not_exist() -> None:
    assert refusal("preset=smal").startswith("preset: 'smal' is none of small, named; did you mean small?")
    assert "did you mean long?" in refusal("model.preset=lnog")
    assert "'long' is none of deep" in refusal("model.preset=long", "model.arch=wide")


def test_keys_of_a_preset_that_the_architecture_lacks_are_dropped_but_never_the_users() -> None:
    assert value("preset=small", "model=table").model == Table(d_model=16)
    assert refusal("preset=small", "model=table", "model.n_layers=3").startswith("model.n_layers: Table has no such")


# Shorthands and unions


@pytest.mark.parametrize(
    ("words", "cut"),
    [
        (["cut=char"], Cut(kind="char")),
        (["cut=char", "cut.size=3"], Cut(kind="char", size=3)),
        (["cut.size=3", "cut=char"], Cut(kind="char", size=3)),
        (["cut=char", "cut.kind=word"], Cut(kind="word")),
        (["cut.kind=word", "cut=char"], Cut(kind="char")),
        (["cut.kind=word", "cut=char", "cut.kind=byte"], Cut(kind="byte")),
        (["preset=small", "cut.size=3"], Cut(kind="char", size=3)),
        (["preset=small", "cut=word"], Cut(kind="word")),
    ],
)
def test_shorthand(words: list[str], cut: Cut) -> None:
    assert value(*words).cut == cut


def test_shorthand_in_yaml_and_on_the_command_line(write: Write) -> None:
    assert value("cut.size=3", path=write("cut: word\n")).cut == Cut(kind="word", size=3)
    assert value("cut.kind=char", path=write("cut: word\n")).cut == Cut(kind="char")
    assert value("cut=char", path=write("cut: {kind: word, size: 3}\n")).cut == Cut(kind="char", size=3)


def test_the_tag_picks_the_class() -> None:
    assert value("model.arch=table", "model.n_rows=3").model == Table(n_rows=3)
    assert value("model=table").model == Table()
    assert refusal("model.arch=tabel") == "model.arch: 'tabel' is none of wide, table; did you mean table?"


def test_a_tag_or_preset_that_is_a_list_is_refused(write: Write) -> None:
    assert "model.arch: ['wide'] is none of" in refusal(path=write("model: {arch: [wide]}\n"))
    assert "preset: ['small'] is none of" in refusal(path=write("preset: [small]\n"))


def test_a_part_that_may_be_absent(write: Write) -> None:
    assert value("model.scaling.factor=3").model == Wide(scaling=Scaling(factor=3.0))
    assert value("model.preset=deep", "model.scaling=null").model == Wide(n_layers=48)
    assert value("model.preset=deep", path=write("model:\n  scaling: null\n")).model == Wide(n_layers=48)
    later = value("model.scaling.factor=4", path=write("model:\n  scaling:\n"))
    assert later.model == Wide(scaling=Scaling(factor=4.0))


def test_a_section_whose_lines_are_all_comments_changes_nothing(write: Write) -> None:
    assert value(path=write("optim:\n  # lr: 3\nseed: 2\n")) == dataclasses.replace(Run(), seed=2)


def test_a_bare_value_where_settings_are_meant() -> None:
    assert refusal("optim=adam") == "optim: expected settings below it, such as optim.lr=..."
    assert refusal("seed.x=3") == "seed: expected a whole number, found settings below it"


# Values


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("optim.lr", "1e-3", 1e-3),
        ("optim.lr", "1", 1.0),
        ("optim.lr", ".5", 0.5),
        ("optim.lr", "1_000.5", 1000.5),
        ("optim.lr", ".inf", math.inf),
        ("seed", "2e3", 2000),
        ("seed", "1_000", 1000),
        ("seed", "-3", -3),
        ("seed", "010", 10),
        ("seed", "12345678901234567890", 12345678901234567890),
        ("json", "true", True),
        ("json", "no", False),
        ("json", "On", True),
        ("bits", "4", 4),
        ("resume", "never", "never"),
        ("resume", "400", 400),
        ("optim.warmup", "null", None),
        ("optim.warmup", "7", 7),
        ("prompt", "1984", "1984"),
        ("prompt", "no", "no"),
        ("prompt", "2024-99-99", "2024-99-99"),
        ("prompt", "1e-3", "1e-3"),
        ("run", "2024-01-01", Path("2024-01-01")),
        ("run", "a folder/with spaces", Path("a folder/with spaces")),
        ("optim.betas", "[0.5, 1e-2]", (0.5, 0.01)),
        ("optim.betas", "0.5", (0.5,)),
        ("optim.betas", "[]", ()),
        ("stop", "[a, 'b, c', no]", ("a", "b, c", "no")),
    ],
)
def test_a_value_from_words_and_from_yaml(key: str, text: str, expected: object, write: Write) -> None:
    *parents, leaf = key.split(".")
    yaml = "".join(f"{'  ' * i}{name}:\n" for i, name in enumerate(parents)) + "  " * len(parents) + f"{leaf}: {text}\n"
    for run in (value(f"{key}={text}"), value(path=write(yaml))):
        found: Any = run
        for name in key.split("."):
            found = getattr(found, name)
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize("stop", ["User:", "\n", "#", "- ", "a=b", "[", "{a: b}", "null\n"])
def test_one_text_is_a_list_of_one_without_brackets(stop: str) -> None:
    assert value(f"stop={stop}").stop == (stop,)


def test_quotes_keep_null_a_text(write: Write) -> None:
    assert value(path=write("prompt: null\n")).prompt is None
    assert value(path=write("prompt: 'null'\n")).prompt == "null"
    assert value(path=write("prompt: none\n")).prompt == "none"
    assert value("prompt=none").prompt is None
    assert value("prompt=").prompt == ""


def test_a_key_that_yaml_takes_for_false(write: Write) -> None:
    assert value(path=write("no: 7\n")).no == 7


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("seed=1.5", "expected a whole number, found '1.5'"),
        ("seed=true", "expected a whole number, found 'true'"),
        ("seed=inf", "expected a whole number, found 'inf'"),
        ("seed=0x10", "expected a whole number, found '0x10'"),
        ("seed=1:30", "expected a whole number, found '1:30'"),
        ("seed=null", "expected a whole number, found 'null'"),
        ("seed=[1]", "expected a whole number, found '[1]'"),
        ("optim.lr=fast", "expected a number, found 'fast'"),
        ("optim.lr=nan", "expected a number, found 'nan'"),
        ("optim.betas=[0.9, x]", "expected a number, found 'x'"),
        ("json=maybe", "expected true or false, found 'maybe'"),
        ("json=1", "expected true or false, found '1'"),
        ("bits=5", "'5' is none of 4, 8"),
        ("resume=nevr", "'nevr' is none of auto, never; did you mean never?; expected a whole number, found 'nevr'"),
        ("run=", "expected a path, found ''"),
    ],
)
def test_a_value_of_the_wrong_type(word: str, why: str) -> None:
    assert refusal(word) == f"{word.partition('=')[0]}: {why}"


def test_a_number_of_thousands_of_digits_is_no_crash() -> None:
    digits = "9" * 5000
    assert len(refusal(f"seed={digits}")) < 150
    assert value(f"optim.lr={digits}").optim.lr == math.inf


def test_an_impossible_combination_names_the_setting_and_the_line(write: Write) -> None:
    assert refusal("model.n_heads=5") == "model.n_heads: 5 does not divide d_model = 64"
    path = write("seed: 1\nmodel:\n  d_model: 30\n")
    assert refusal(path=path) == f"{path}:3: model.n_heads: 4 does not divide d_model = 30"


def test_a_needed_setting() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        name: str

    with pytest.raises(ConfigError, match=r"name: needed, and not given; add name=\.\.\."):
        config.resolve(Needy, {})


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("optim.waarmup=1", "optim.warmup"),  # a neighbour
        ("wramup=1", "optim.warmup"),  # elsewhere
        ("model.warmpu=1", "optim.warmup"),  # misspelt and in the wrong place
        ("optim.d_model=1", "model.d_model"),  # in the wrong place
        ("optim.l=1", "optim.lr"),  # short names are far from each other
        ("d-model=1", "model.d_model"),
        ("preste=small", "preset"),
    ],
)
def test_what_was_probably_meant(word: str, meant: str) -> None:
    assert refusal(word).endswith(f"no such setting; did you mean {meant}?")


def test_what_nobody_can_guess_lists_what_is_possible() -> None:
    assert refusal("optim.xyzzy=1") == "optim.xyzzy: no such setting; possible: lr, betas, warmup"


# Files


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("seed: 1\nrun: a\nseed: 2\n", 3, "'seed' is given twice"),
        ("optim:\n  lr: 1\n  lr: 2\n", 3, "'lr' is given twice"),
        ("seed: 1\noptim:\n  l: 3\n", 3, "optim.l: no such setting"),
        ("seed: 1\n\njson: 5\n", 3, "json: expected true or false, found '5'"),
        ("seed: 1\nbroken: [1, 2\n", 3, "not valid YAML"),
        ("- a\n- b\n", 1, "expected a mapping"),
        ("seed: 1\n---\nseed: 2\n", 2, "another document"),
        ("? [a, b]\n: 3\n", 1, "a key must be a word"),
        ("'': 3\n", 1, "a key must be a word"),
        ("seed: 1\nrun: !!python/object/apply:os.getcwd []\n", 2, "a tag"),
        ("seed: !!int '3'\n", 1, "a tag"),
        ("stop: [a, {b: c}]\n", 1, "a list holds values"),
        ("seed: 1\noptm: {}\n", 2, "optm: no such setting; did you mean optim?"),
        ("seed: 1\noptm:\n  lr: 1\n", 2, "optm: no such setting; did you mean optim?"),
        ("optim.lr: 3\n", 1, "write 'lr' below 'optim'"),
        ("seed: &a [*a]\n", 1, "more than 32 levels"),
    ],
)
def test_what_is_wrong_in_a_file_is_found_with_its_line(text: str, line: int, why: str, write: Write) -> None:
    path = write(text)
    message = refusal(path=path)
    assert message.startswith(f"{path}:{line}: ")
    assert why in message


def test_an_empty_file_says_nothing(write: Write) -> None:
    assert value(path=write("")) == Run()
    assert value(path=write("# only a comment\n")) == Run()


def test_a_byte_order_mark_and_windows_line_ends(write: Write) -> None:
    assert value(path=write("\ufeffseed: 3\r\noptim:\r\n  lr: 1\r\n")).seed == 3


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(path=tmp_path / "none.yaml")
    assert "cannot be read (Is a directory)" in refusal(path=tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"seed: 1\nrun: \xff\n")
    assert refusal(path=path).startswith(f"{path}:2: not UTF-8 text")
    path.write_bytes(b"seed: 1\nrun: \x00\n")
    assert refusal(path=path).startswith(f"{path}: not valid YAML")


def test_a_bomb_of_aliases_is_refused(write: Write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 6)]
    assert "10,000 values" in refusal(path=write("\n".join(lines)))


@pytest.mark.parametrize("depth", [40, 450])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ("{a: ", "}")])
def test_deep_nesting_is_refused(depth: int, start: str, end: str, write: Write) -> None:
    text = f"seed: {start * depth}1{end * depth}\n"
    assert "32 levels" in refusal(path=write(text))


def test_a_file_that_is_too_large_is_not_parsed(write: Write) -> None:
    assert "100,000 bytes" in refusal(path=write("# " + "x" * 100_000))


@pytest.mark.parametrize("word", ["seed", "=3", ".seed=3", "optim..lr=3", "optim.=3"])
def test_a_word_that_is_no_key_and_value(word: str) -> None:
    assert refusal(word) == f"{word!r}: expected key=value"


# Words of a command line


def words(*given: str) -> tuple[Path | None, list[str]]:
    return config.normalise_words(given, positional=("model", "prompt"), is_switch={"json": True, "seed": False})


@pytest.mark.parametrize(
    ("given", "pairs"),
    [
        (["--lr", "1e-3"], ["lr=1e-3"]),
        (["--lr=1e-3"], ["lr=1e-3"]),
        (["--optim.min-lr-ratio", "0"], ["optim.min_lr_ratio=0"]),
        (["min-lr-ratio=0"], ["min_lr_ratio=0"]),
        (["--presence-penalty", "-1"], ["presence_penalty=-1"]),
        (["--json", "seed=1"], ["json=true", "seed=1"]),
        (["--json=false"], ["json=false"]),
        (["seed=1", "--json"], ["seed=1", "json=true"]),
        (["prompt=a=b"], ["prompt=a=b"]),
        (["runs/a", "2 + 2 = "], ["model=runs/a", "prompt=2 + 2 = "]),
        (["runs/lr=3"], ["model=runs/lr=3"]),
        (["runs/a", "--", "x=1"], ["model=runs/a", "prompt=x=1"]),
        (["--", "-a", "--b"], ["model=-a", "prompt=--b"]),
        (["runs/a", "- a list"], ["model=runs/a", "prompt=- a list"]),
        (["hello", "model=runs/a"], ["model=runs/a", "prompt=hello"]),
        (["--model", "runs/a", "hello"], ["model=runs/a", "prompt=hello"]),
    ],
)
def test_the_ways_to_write_a_setting(given: list[str], pairs: list[str]) -> None:
    assert words(*given) == (None, pairs)


def test_a_yaml_file_among_the_words() -> None:
    assert words("runs/a", "my run.yaml", "seed=1") == (Path("my run.yaml"), ["seed=1", "model=runs/a"])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--seed"], "--seed: needs a value"),
        (["--prompt", "--json"], "--prompt: needs a value"),
        (["-t", "0.8"], "'-t': expected key=value"),
        (["a", "b", "c"], "'c': expected key=value"),
    ],
)
def test_a_word_that_fits_nowhere(given: list[str], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        words(*given)
    assert str(caught.value).startswith(why)


# Back to text

HARD = [
    Run(),
    value("preset=small", "model.preset=deep"),
    value("model=table", "prompt=null", "optim.warmup=null", "resume=12"),
    Run(optim=Optim(lr=0.1 + 0.2, betas=(1 / 3, 5e-324, 1.7976931348623157e308, math.inf), warmup=None)),
    Run(prompt="null", stop=("no", "1e-3", "a\nb", "# c", "x: y", "'\"", "", " ", "\u2028", "\x85", "ä🎉", "~", "010")),
    Run(prompt="word " * 5000, run=Path("a: b #c/é")),
]


@pytest.mark.parametrize("run", HARD, ids=range(len(HARD)))
def test_to_yaml_reads_back_exactly(run: Run, write: Write) -> None:
    assert value(path=write(config.to_yaml(run))) == run


@pytest.mark.parametrize("run", HARD, ids=range(len(HARD)))
def test_describe_reads_back_exactly(run: Run, write: Write) -> None:
    assert value(path=write(config.describe(config.Resolved(run)))) == run


@pytest.mark.parametrize("run", HARD, ids=range(len(HARD)))
def test_every_value_is_one_line(run: Run) -> None:
    """Between its key and its origin, at any depth, there is no room for two."""
    for one in (run.prompt, run.run, run.stop, run.optim.betas):
        assert len(config.describe_value(one).splitlines()) == 1


def test_describe_has_documentation_values_and_origins() -> None:
    text = config.describe(resolved("optim.lr=0.5", "preset=small"))
    assert "# How steps are made.\noptim:\n  # How far.\n  lr: 0.5  # command line\n" in text
    assert "  n_layers: 2  # preset small\n" in text
    assert "# The luck.\nseed: 1\n" in text


def fields_of(cls: type) -> set[tuple[type, str]]:
    """Every field of a configuration, each with the class it is in."""
    return {(cls, name) for name in hints_of(cls)}.union(
        *(fields_of(member) for kind in hints_of(cls).values() for member in classes_in(kind))
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_of_every_verb_is_documented(verb: str) -> None:
    for cls, name in sorted(fields_of(config_class(load_verb(verb))), key=str):
        members = classes_in(typing.get_type_hints(cls)[name])
        documented = docs_of(cls).get(name) or (all(summary_of(member) for member in members) and members)
        assert documented, f"{cls.__name__}.{name} has no text below it"
        assert not summary_of(cls).startswith(f"{cls.__name__}("), f"{cls.__name__} has no docstring"


@pytest.mark.parametrize("verb", VERBS)
def test_the_defaults_of_every_verb_read_back(verb: str, write: Write) -> None:
    cls = config_class(load_verb(verb))
    needed = {
        "name": "llama3", "tokenizer": "tok.json", "data": "pairs.jsonl", "source": "FOLDER", "target": "NEW",
        "model": "FOLDER", "part": "llama3", "adapter": "FOLDER", "out": "NEW", "file": "answers.jsonl",
        "tasks": "[arc_easy]",
    }  # fmt: skip
    given = [f"{f.name}={needed[f.name]}" for f in dataclasses.fields(cls) if f.default is f.default_factory]
    run = config.resolve(cls, config.read(None, given))
    assert config.resolve(cls, config.read(write(config.describe(run)), [])).value == run.value
