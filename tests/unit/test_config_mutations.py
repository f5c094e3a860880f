"""A valid configuration of `legollm train`, spoiled in one place: always refused, nearly always with the right hint."""

import random
import string
from pathlib import Path

import pytest

from legollm import config
from legollm.cli import load_verb, main, resolve_verb
from legollm.errors import ConfigError

VALID = """\
preset: tiny
run: runs/book
seed: 7
data:
  source: world
  val_fraction: 0.05
tokenizer:
  kind: char
  vocab_size: 1024
model:
  arch: qwen3
  n_layers: 2
  n_heads: 4
  n_kv_heads: 2
  d_model: 64
  max_seq_len: 32
optim:
  lr: 1e-3
  warmup_steps: 10
  weight_decay: 0.1
  betas: [0.9, 0.95]
train:
  max_steps: 100
  batch_size: 4
  grad_accum: 2
  log_every: 10
  eval_every: 50
"""

SECTIONS = ("data", "tokenizer", "model", "optim", "train")


def lines_of_keys() -> dict[str, int]:
    """The line of every key of VALID, by its dotted path."""
    found, section = {}, ""
    for number, line in enumerate(VALID.splitlines(), 1):
        key = line.partition(":")[0]
        section = section if key.startswith(" ") else key
        found[f"{section}.{key.strip()}" if key.startswith(" ") else key] = number
    return found


LINES = lines_of_keys()
LEAVES = [path for path in LINES if path not in SECTIONS]


def misspelt(path: str, rng: random.Random) -> str:
    """The last name of a path with one letter less, more, changed or swapped; long names get a second such slip."""
    name = path.rpartition(".")[2]
    wrong = name
    for _ in range(rng.choice((1, 2)) if len(name) > 5 else 1):
        i = rng.randrange(len(wrong) - 1)
        letter = rng.choice(string.ascii_lowercase)
        wrong = rng.choice(
            (
                wrong[:i] + wrong[i + 1 :],
                wrong[:i] + letter + wrong[i:],
                wrong[:i] + letter + wrong[i + 1 :],
                wrong[:i] + wrong[i + 1] + wrong[i] + wrong[i + 2 :],
            )
        )
    return wrong if wrong != name else f"{name}x"


RNG = random.Random(12)
MISSPELT = [(path, misspelt(path, RNG)) for path in [*LEAVES, *RNG.choices(LEAVES, k=17)]]

ELSEWHERE = {  # what other projects call it: our name
    "learning_rate": "optim.lr",
    "n_layer": "model.n_layers",
    "num_hidden_layers": "model.n_layers",
    "n_head": "model.n_heads",
    "num_attention_heads": "model.n_heads",
    "num_key_value_heads": "model.n_kv_heads",
    "n_embd": "model.d_model",
    "hidden_size": "model.d_model",
    "intermediate_size": "model.d_ff",
    "head_dim": "model.d_head",
    "block_size": "model.max_seq_len",
    "n_ctx": "model.max_seq_len",
    "max_position_embeddings": "model.max_seq_len",
    "max_iters": "train.max_steps",
    "gradient_accumulation_steps": "train.grad_accum",
    "max_grad_norm": "train.grad_clip",
    "dtype": "train.precision",
    "warmup_iters": "optim.warmup_steps",
    "eval_interval": "train.eval_every",
    "model_type": "model.arch",
    "out_dir": "run",
    "dataset": "data.source",
}

IMPOSSIBLE = [  # a setting, a value of the wrong type or out of range, and a word of the reason
    ("seed", "one", "whole number"),
    ("seed", "1.5", "whole number"),
    ("resume", "sometimes", "auto, never"),
    ("train.max_steps", "0", "at least 1"),
    ("train.max_steps", "lots", "whole number"),
    ("train.batch_size", "-4", "at least 1"),
    ("train.grad_accum", "0", "at least 1"),
    ("train.precision", "float8", "float32, bfloat16"),
    ("train.device", "gpu", "cpu, cuda, mps"),
    ("train.eval_every", "-1", "negative"),
    ("train.keep", "0", "at least 2"),
    ("optim.lr", "-0.1", "above 0"),
    ("optim.lr", "1e400", "below 10"),
    ("optim.betas", "[0.9]", "two numbers"),
    ("optim.betas", "[0.9, 1.5]", "two numbers"),
    ("optim.schedule", "cosin", "did you mean cosine"),
    ("optim.weight_decay", "none", "expected a number"),
    ("model.arch", "gtp2", "did you mean gpt2"),
    ("model.n_layers", "2.5", "whole number"),
    ("model.n_layers", "-1", "whole number from 1"),
    ("model.n_heads", "0", "whole number from 1"),
    ("model.n_kv_heads", "3", "does not divide n_heads = 4; use 1, 2 or 4"),
    ("model.d_head", "15", "even"),
    ("model.tie_embeddings", "maybe", "true or false"),
    ("model.d_model", "[64]", "whole number"),
    ("data.val_fraction", "1.0", "between 0 and 1"),
    ("data.split", "random", "none of"),
    ("tokenizer.kind", "bpee", "none of"),
    ("optim", "adamw_8bit", ""),
    ("preset", "tinny", "did you mean tiny"),
]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the spoiled configuration goes; runs would appear beside it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run.yaml"


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that `legollm train` says instead of working."""
    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("legollm: ")
    assert err.count("\n") == 1
    assert not Path("runs").exists()
    return err.removeprefix("legollm: ").rstrip("\n")


def in_yaml(path: str, value: str) -> tuple[str, int]:
    """VALID with another value, or one more key, at a dotted path; and the line of it."""
    lines = VALID.splitlines()
    section, _, key = path.rpartition(".")
    text = f"  {key}: {value}" if section else f"{key}: {value}"
    if path in LINES and path not in SECTIONS:
        lines[LINES[path] - 1] = text
        return "\n".join(lines), LINES[path]
    if path in SECTIONS:
        kept = [line for at, line in zip(LINES, lines, strict=True) if at.partition(".")[0] != path]
        return "\n".join([*kept, text]), len(kept) + 1
    at = LINES[section] if section else 0
    return "\n".join([*lines[:at], text, *lines[at:]]), at + 1


def test_the_configuration_that_is_spoiled_here_is_valid(path: Path) -> None:
    path.write_text(VALID, encoding="utf-8")
    run = resolve_verb(load_verb("train"), [str(path)])
    assert set(LEAVES) - {"preset"} <= {key for key, origin in run.origins.items() if origin.startswith(str(path))}


def test_there_are_enough_of_them() -> None:
    assert len(MISSPELT) + len(ELSEWHERE) + len(IMPOSSIBLE) + len(SECTIONS) >= 60


def hinted(messages: dict[str, str]) -> float:
    """The share of messages that name the setting that was meant: {message: dotted path}."""
    right = [message.endswith(f"did you mean {path}?") for message, path in messages.items()]
    return sum(right) / len(right)


def test_misspelt_keys_in_yaml(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = {}
    for right, wrong in MISSPELT:
        lines = VALID.splitlines()
        number = LINES[right]
        lines[number - 1] = lines[number - 1].replace(right.rpartition(".")[2], wrong, 1)
        path.write_text("\n".join(lines), encoding="utf-8")
        message = refused([str(path)], capsys)
        section = right.rpartition(".")[0]
        assert message.startswith(f"{path}:{number}: {section}{'.' if section else ''}{wrong}: no such setting"), (
            message
        )
        messages[message] = right
    assert hinted(messages) >= 0.9, messages


def test_misspelt_keys_on_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = {}
    for right, wrong in MISSPELT:
        section = right.rpartition(".")[0]
        dotted = f"{section}.{wrong}" if section else wrong
        message = refused([f"{dotted}=1"], capsys)
        assert message.startswith(f"{dotted}: no such setting"), message
        messages[message] = right
    assert hinted(messages) >= 0.9, messages


@pytest.mark.parametrize("section", SECTIONS)
def test_misspelt_sections(section: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = section[:2] + section[3:]
    path.write_text(VALID.replace(f"\n{section}:", f"\n{wrong}:"), encoding="utf-8")
    message = refused([str(path)], capsys)
    assert message.endswith(f": {wrong}: no such setting; did you mean {section}?")
    assert refused([f"{wrong}.x=1"], capsys) == f"{wrong}: no such setting; did you mean {section}?"


@pytest.mark.parametrize(("theirs", "ours"), ELSEWHERE.items())
def test_names_of_other_projects(theirs: str, ours: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both where ours would be and, as flat configurations have them, at the top."""
    section = ours.rpartition(".")[0]
    for at in dict.fromkeys((f"{section}.{theirs}" if section else theirs, theirs)):
        assert refused([f"{at}=1"], capsys) == f"{at}: no such setting; did you mean {ours}?"
        text, line = in_yaml(at, "1")
        path.write_text(text, encoding="utf-8")
        assert refused([str(path)], capsys) == f"{path}:{line}: {at}: no such setting; did you mean {ours}?"


@pytest.mark.parametrize(("setting", "value", "why"), IMPOSSIBLE)
def test_impossible_values(setting: str, value: str, why: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused([f"{setting}={value}"], capsys)
    assert message.startswith(setting.rpartition(".")[0])
    assert why in message
    text, line = in_yaml(setting, value)
    path.write_text(text, encoding="utf-8")
    message = refused([str(path)], capsys)
    assert message.startswith(f"{path}:{line}: "), message
    assert why in message


@pytest.mark.parametrize("repeated", ["seed", "optim.lr", "model.n_layers"])
def test_duplicate_keys(repeated: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = VALID.splitlines()
    number = LINES[repeated]
    path.write_text("\n".join([*lines[:number], lines[number - 1], *lines[number:]]), encoding="utf-8")
    assert refused([str(path)], capsys).startswith(f"{path}:{number + 1}: {repeated.rpartition('.')[2]!r} is given")


def test_a_setting_of_another_architecture(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = VALID.replace("arch: qwen3", "arch: gpt2")
    path.write_text(text, encoding="utf-8")
    assert refused([str(path)], capsys).startswith(f"{path}:{LINES['model.n_kv_heads']}: model.n_kv_heads: GPT2Config")


def test_words_are_checked_over_a_valid_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(VALID, encoding="utf-8")
    assert refused([str(path), "optim.lrr=1"], capsys) == "optim.lrr: no such setting; did you mean optim.lr?"
    with pytest.raises(ConfigError, match="does not divide n_heads = 8"):
        resolve_verb(load_verb("train"), [str(path), "model.n_heads=8", "model.n_kv_heads=3"])
    assert config.read(path, [])["seed"] == config.Given("7", f"{path}:3")
