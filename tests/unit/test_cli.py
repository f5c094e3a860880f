"""The command line as a whole: verbs, help, words, exit statuses, one-line errors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest

from legollm import __version__, cli, config, errors
from legollm.architectures import ARCHITECTURES
from legollm.architectures.qwen3 import Qwen3Config
from legollm.cli import VERBS, config_class, find_verb, load_verb, main, presets_of, resolve_verb
from legollm.config import Resolved

SRC = Path(__file__).parent.parent.parent / "src"

Capture = pytest.CaptureFixture[str]


def says(capsys: Capture, *words: str, status: int = 0) -> str:
    """What a command line prints; errors are one line that starts with the program's name."""
    assert main(words) == status
    out, err = capsys.readouterr()
    if status:
        assert out == ""
        assert err.startswith("legollm: ")
        assert err.count("\n") == 1
        return str(err)
    assert err == ""
    return str(out)


def fresh(*words: str, code: str = "") -> "subprocess.Popen[str]":
    """The program, or some code, in a new Python that finds the package in src/."""
    call = ["-c", code] if code else ["-m", "legollm", *words]
    env = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": ""}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *call], stdout=pipe, stderr=pipe, text=True, env=env)


# Help


def test_overview_lists_every_verb(capsys: Capture) -> None:
    text = says(capsys, "--help")
    assert all(f"\n  {name} " in text for name in [*VERBS, "config VERB"])
    assert {text, says(capsys, "-h"), says(capsys, "help"), says(capsys)} == {text}


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_its_usage_and_every_setting(verb: str, capsys: Capture) -> None:
    text = says(capsys, *verb.split(), "--help")
    assert text.startswith(f"usage: legollm {verb} ")
    for field in fields(config_class(load_verb(verb))):
        assert f"\n  {field.name}=" in text or f"\n  {field.name}.\n" in text
    assert max(map(len, text.splitlines())) <= 100
    assert says(capsys, "help", *verb.split()) == text
    assert says(capsys, *verb.split(), "-h") == text


def test_overview_fits_a_hundred_columns(capsys: Capture) -> None:
    assert max(map(len, says(capsys, "--help").splitlines())) <= 100


def test_help_tells_choices_presets_and_what_is_needed(capsys: Capture) -> None:
    verb = load_verb("train")
    train = " ".join(says(capsys, "help", "train").split())
    sizes = presets_of(verb)
    assert f"wins over it: {', '.join(sizes[config_class(verb)])}." in train
    others = [name for name, row in ARCHITECTURES.items() if row.learns != "pairs" and name != "qwen3"]
    assert f"model.arch is qwen3, or {', '.join(others)} " in train
    assert f"model.preset may be {', '.join(sizes[Qwen3Config])}, " in train
    encode = says(capsys, "help", "tokenizer", "encode")
    assert "usage: legollm tokenizer encode TOKENIZER [text]" in encode
    assert "  tokenizer=...  (needed)\n" in encode
    assert "legollm config tokenizer encode tokenizer=..." in encode


def test_help_of_a_family_of_verbs(capsys: Capture) -> None:
    text = says(capsys, "tokenizer", "--help")
    assert "tokenizer encode" in text
    assert "data list" not in text
    assert says(capsys, "help", "tokenizer") == text


def test_version(capsys: Capture) -> None:
    assert says(capsys, "--version") == f"legollm {__version__}\n"


def test_help_behind_two_dashes_is_text(capsys: Capture) -> None:
    assert says(capsys, "tokenizer", "encode", "nowhere.json", "--", "--help", status=2) != ""


def test_what_needs_no_model_imports_no_torch() -> None:
    code = """
import json, sys
from legollm.cli import main
for words in (["--help"], ["help"], ["--version"], ["trian"], ["tokenizer", "--help"], ["config"]):
    main(words)
print(json.dumps(sorted({"torch", "numpy"} & sys.modules.keys())))
"""
    out, err = fresh(code=code).communicate()
    assert json.loads(out.splitlines()[-1]) == [], err


# Verbs


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("trian", "did you mean 'train'?"),
        ("chatt", "did you mean 'chat'?"),
        ("conifg", "did you mean 'config'?"),
        ("encode", "did you mean 'tokenizer encode'?"),
        ("tokenizer trian", "did you mean 'tokenizer train'?"),
        ("tokenizer xyz", "possible: tokenizer train, tokenizer encode"),
        ("dta list", "did you mean 'data list'"),
        ("tokenizer", "needs one more word: tokenizer train, tokenizer encode"),
        ("xyzzy", "see legollm --help"),
    ],
)
def test_a_verb_that_does_not_exist(words: str, hint: str, capsys: Capture) -> None:
    assert hint in says(capsys, *words.split(), status=2)


def test_a_verb_is_one_word_or_two() -> None:
    assert find_verb(["train", "seed=1"]) == ("train", ["seed=1"])
    assert find_verb(["tokenizer", "train", "seed=1"]) == ("tokenizer train", ["seed=1"])


# Words


@dataclass(frozen=True, kw_only=True)
class EchoRun:
    """What to say back."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model", "prompt")

    model: Path = Path("m")
    """A folder."""
    prompt: str | None = None
    """A text."""
    max_steps: int = 1
    """A number."""
    json: bool = False
    """A switch."""


def echo(run: Resolved[EchoRun]) -> None:
    """Say what was understood."""
    cfg = run.value
    print(json.dumps([cfg.model.as_posix(), cfg.prompt, cfg.max_steps, cfg.json]))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., int | None]], None]:
    """Make a function the verb that every command line finds."""
    return lambda function: monkeypatch.setattr(cli, "load_verb", lambda name: function)


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        (["max_steps=3"], ["m", None, 3, False]),
        (["--max-steps", "3"], ["m", None, 3, False]),
        (["--max_steps=3", "--json"], ["m", None, 3, True]),
        (["--json", "runs/a", "hello"], ["runs/a", "hello", 1, True]),
        (["--json=no"], ["m", None, 1, False]),
        (["json=true"], ["m", None, 1, True]),
        (["runs/a", "2 + 2 ="], ["runs/a", "2 + 2 =", 1, False]),
        (["runs/a", "so x = 3, y = 4"], ["runs/a", "so x = 3, y = 4", 1, False]),
        (["runs/a", "prompt=x=3"], ["runs/a", "x=3", 1, False]),
        (["runs/a", "--", "x=3"], ["runs/a", "x=3", 1, False]),
        (["a prompt", "model=my models/a b"], ["my models/a b", "a prompt", 1, False]),
    ],
)
def test_words_reach_the_verb(
    words: list[str], understood: list[object], use: Callable[[object], None], capsys: Capture
) -> None:
    use(echo)
    assert json.loads(says(capsys, "chat", *words)) == understood


def test_a_prompt_that_looks_like_a_setting_is_not_taken_silently(
    use: Callable[[object], None], capsys: Capture
) -> None:
    use(echo)
    assert "x: no such setting" in says(capsys, "chat", "runs/a", "x=3", status=2)


def test_a_configuration_and_words(use: Callable[[object], None], capsys: Capture, tmp_path: Path) -> None:
    use(echo)
    path = tmp_path / "my run.yaml"
    path.write_text("prompt: hello\nmax_steps: 2\n", encoding="utf-8")
    assert json.loads(says(capsys, "chat", str(path), "max_steps=5")) == ["m", "hello", 5, False]


# Exit statuses


def every_error(cls: type[errors.LegoLLMError] = errors.LegoLLMError) -> list[type[errors.LegoLLMError]]:
    return [cls, *(child for direct in cls.__subclasses__() for child in every_error(direct))]


STATUSES = {
    "LegoLLMError": 1,
    "ConfigError": 2,
    "DataError": 2,
    "TokenizerError": 2,
    "ContextError": 2,
    "VerifierError": 2,
    "SandboxError": 1,
    "DownloadError": 1,
    "CheckpointError": 1,
    "IntegrityError": 5,
    "PeerError": 1,
    "LoweringError": 2,
    "TooLargeError": 1,
    "DivergedError": 4,
    "Interrupted": 3,
}


def test_every_error_has_its_status(use: Callable[[object], None], capsys: Capture) -> None:
    ours = [error for error in every_error() if error.__module__ == "legollm.errors"]
    assert {error.__name__ for error in ours} == set(STATUSES)
    for error in ours:

        def verb(run: Resolved[EchoRun], error: type[errors.LegoLLMError] = error) -> None:
            raise error("what was found;\nwhat to do")

        use(verb)
        assert says(capsys, "chat", status=STATUSES[error.__name__]) == "legollm: what was found; what to do\n"


def test_a_bug_is_a_traceback(use: Callable[[object], None]) -> None:
    def verb(run: Resolved[EchoRun]) -> None:
        raise ValueError("not the user's fault")

    use(verb)
    with pytest.raises(ValueError, match="not the user's fault"):
        main(["chat"])


def test_a_path_the_system_refuses_is_one_line(use: Callable[[object], None], capsys: Capture, tmp_path: Path) -> None:
    def verb(run: Resolved[EchoRun]) -> None:
        (tmp_path / "none" / "file").write_text("x", encoding="utf-8")

    use(verb)
    line = says(capsys, "chat", status=1)
    assert line == f"legollm: {tmp_path / 'none' / 'file'}: No such file or directory\n"


def test_an_error_of_the_system_without_a_path_is_a_traceback(use: Callable[[object], None]) -> None:
    def verb(run: Resolved[EchoRun]) -> None:
        raise OSError("no path")

    use(verb)
    with pytest.raises(OSError, match="no path"):
        main(["chat"])


def test_the_status_a_verb_returns_is_the_programs(use: Callable[[object], None]) -> None:
    def verb(run: Resolved[EchoRun]) -> int:
        return 4

    use(verb)
    assert main(["chat"]) == 4


def test_control_c(use: Callable[[object], None], capsys: Capture) -> None:
    def verb(run: Resolved[EchoRun]) -> None:
        raise KeyboardInterrupt

    use(verb)
    assert says(capsys, "chat", status=130) == "legollm: interrupted\n"


def test_a_reader_that_stops_reading_is_no_error() -> None:
    """Output that fits the buffer is only written at the end: the pipe was found closed after `main` had returned."""
    process = fresh("--help")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0


def test_log_level_of_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("LEGOLLM_LOG", "info")
    says(capsys, "--version")
    monkeypatch.setenv("LEGOLLM_LOG", "loud")
    assert "LEGOLLM_LOG: 'loud' is none of debug, info" in says(capsys, "--version", status=2)


# legollm config


def test_config_shows_origins_and_reads_back(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    words = ["preset=tiny", "model=gpt2", "optim.lr=3e-4", "prompt=a: b", "run=runs/my run", "train.eval_every=7"]
    text = says(capsys, "config", "train", *words)
    assert "\n  lr: 0.0003  # command line\n" in text
    assert "\n  n_layers: 2  # preset tiny\n" in text
    assert max(map(len, text.splitlines())) <= 100
    path.write_text(text, encoding="utf-8")
    train = load_verb("train")
    assert resolve_verb(train, [str(path)]).value == resolve_verb(train, words).value
    again = says(capsys, "config", "train", str(path), "seed=5")
    assert "\nseed: 5  # command line\n" in again
    assert f"  # {path}:" in again


def test_config_of_everything_wrong(capsys: Capture) -> None:
    assert "did you mean optim.lr?" in says(capsys, "config", "train", "optim.learning_rate=1", status=2)
    assert "did you mean 'train'?" in says(capsys, "config", "trian", status=2)
    assert says(capsys, "config").startswith("usage: legollm config VERB")
    assert says(capsys, "config", "train", "--help") == says(capsys, "config")
    assert "tokenizer: needed" in says(capsys, "config", "tokenizer", "encode", status=2)


# Impossible combinations


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["model=gpt2", "model.n_heads=3"], "model.n_heads: 3 does not divide d_model = 128; use 1, 2, 4,"),
        (["model=llama3", "model.n_heads=5"], "model.n_heads: 5 does not divide d_model = 128"),
        (
            ["model.n_heads=6", "model.n_kv_heads=4"],
            "model.n_kv_heads: 4 does not divide n_heads = 6; use 1, 2, 3 or 6",
        ),
        (["model.d_head=31"], "model.d_head: makes heads of 31 channels; rotary positions need an even number"),
        (["train.seq_len=512"], "train.seq_len: 512 is more than model.max_seq_len = 256"),
        (["tokenizer=byte", "model.vocab_size=100"], "model.vocab_size: 100 is less than the tokenizer's 2"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_arithmetic(
    words: list[str], why: str, capsys: Capture, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 200, encoding="utf-8")
    line = says(capsys, "train", f"data={text}", f"run={tmp_path / 'run'}", "tokenizer=char", *words, status=2)
    assert why in line
    assert not (tmp_path / "run" / "checkpoints").is_dir() or not any((tmp_path / "run" / "checkpoints").iterdir())


def test_the_defaults_of_a_verb_are_not_those_of_the_parts() -> None:
    """`legollm sft optim.weight_decay=0` once trained with the learning rate of pre-training."""
    usual = resolve_verb(load_verb("sft"), []).value
    changed = resolve_verb(load_verb("sft"), ["optim.weight_decay=0", "train.keep=3"]).value
    assert changed.optim.lr == usual.optim.lr
    assert changed.train.max_steps == usual.train.max_steps
    assert config.to_tree(changed)["optim"] | {"weight_decay": 0.1} == config.to_tree(usual)["optim"]


def test_a_verb_for_one_process_is_refused_in_many(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == (
        "legollm: demo: runs in one process, and WORLD_SIZE is 2; start it without torchrun, which is for train, sft, "
        "dpo, reward, seq2seq train, classify train\n"
    )
    assert main(["demo", "--help"]) == 0
