"""The whole walk through the command line, in a folder whose name is not plain: text in, answers out."""

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import legollm as package
from legollm.checkpoints.loading import Loaded
from legollm.commands.chat import Conversation
from legollm.data.chat import Message
from legollm.data.loader import TokenFile
from legollm.errors import ConfigError
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.tokenizers import load_tokenizer
from legollm.training.metrics import read_rows
from walker import LOOP, MODEL, legollm, train_base

RUN = "runs/base"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("walk") / "mes modèles à moi 日本"
    folder.mkdir()
    with contextlib.chdir(folder):
        train_base(folder)
        yield folder


@pytest.fixture
def lm(home: Path) -> Loaded:
    return package.load(RUN)


@pytest.fixture(scope="module")
def answering(home: Path) -> Path:
    """The base model, fine-tuned on messages."""
    said = legollm("sft", f"model={RUN}", "data.source=messages.jsonl", "run=runs/answers", *LOOP)
    assert "next: legollm chat runs/answers/checkpoint" in said.out
    return Path("runs/answers")


def test_summary(home: Path) -> None:
    n_bytes = (home / "book.txt").stat().st_size
    figures = legollm("data", "summary", "book.txt", "tokenizer=tok.json", "--json").json
    assert (figures["documents"], figures["bytes"], figures["exact_copies"]) == (1, n_bytes, 0)
    assert 1 < figures["bytes_per_token"] < 10
    assert f"{n_bytes:,}" in legollm("data", "summary", "book.txt").out


def test_a_tokenizer_cuts_and_joins(home: Path) -> None:
    text = "Mira put the key — 日本 — in <|im_end|> the box.\n"
    ids = legollm("tokenizer", "encode", "tok.json", text, "--json").json
    assert ids == load_tokenizer("tok.json").encode(text)
    assert legollm("tokenizer", "encode", "tok.json", "--json", given=text).json == ids
    assert legollm("tokenizer", "decode", "tok.json", *map(str, ids)).out == f"{text}\n"
    assert legollm("tokenizer", "decode", "tok.json", given=f"{ids}\n").out == f"{text}\n"
    with_special = legollm("tokenizer", "encode", "tok.json", text, "allow_special=true", "--json").json
    assert len(with_special) < len(ids)
    pieces, numbers, figures = legollm("tokenizer", "encode", f"{RUN}/checkpoint", "the key").out.splitlines()
    assert pieces.replace("|", "") == "the key"
    assert f"{len(numbers.split())} tokens, 7 bytes" in figures


def test_tokenizers_side_by_side(home: Path) -> None:
    words = ("tokenizer", "compare", "data=book.txt", "tokenizers=[byte, char, tok.json]", "n_bytes=5000")
    rows = legollm(*words, "--json").json
    assert [row["name"] for row in rows] == ["byte", "char", "tok.json"]
    assert rows[0]["bytes_per_token"] == 1.0 < rows[2]["bytes_per_token"]
    assert len(legollm(*words).out.splitlines()) == 4


def test_what_is_prepared_is_not_prepared_again(home: Path) -> None:
    words = ("data", "prepare", "book.txt", "tokenizer=tok.json", "folder=data/book")
    before = {path: path.stat().st_mtime_ns for path in Path("data/book").glob("*.[bim]*")}
    assert "already there, nothing to do" in legollm(*words).out
    assert before == {path: path.stat().st_mtime_ns for path in Path("data/book").glob("*.[bim]*")}
    assert legollm(*words, "--json").json == json.loads(Path("data/book/meta.json").read_text(encoding="utf-8"))


def test_another_tokenizer_is_another_preparation(home: Path) -> None:
    """The tokenizer of the first call was once taken for every later one."""
    words = ("data", "prepare", "book.txt", "folder=data/again", "--json")

    def tokenizer(*more: str) -> dict[str, Any]:
        return dict(legollm(*words, *more).json["tokenizer"])

    assert tokenizer("tokenizer.vocab_size=300")["vocab_size"] == 300
    assert tokenizer("tokenizer.vocab_size=280")["vocab_size"] == 280
    assert tokenizer("tokenizer=byte")["kind"] == "byte"
    assert tokenizer("tokenizer=tok.json")["fingerprint"] == load_tokenizer("tok.json").fingerprint
    assert tokenizer("tokenizer=data/again/tokenizer.json")["fingerprint"] == load_tokenizer("tok.json").fingerprint
    assert tokenizer("tokenizer=char")["kind"] == "char"


def test_a_run_folder_is_complete(home: Path) -> None:
    assert {path.name for path in Path(RUN).iterdir()} >= {"config.yaml", "metrics.jsonl", "checkpoints", "checkpoint"}
    assert "loss  " not in legollm("train", f"{RUN}/config.yaml").out  # it is done: nothing is trained again
    rows = read_rows(Path(RUN) / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 8]
    assert all(row["sample"] for row in rows if "val_loss" in row)


def test_a_model_with_more_ids_than_the_tokenizer_and_its_run_as_a_tokenizer(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The samples of such a run once ended it; and a run on prepared text has its tokenizer in its checkpoint only."""
    small = [*MODEL, *LOOP, "model.max_seq_len=32", "train.max_steps=2"]
    said = legollm("train", "data.prepared=data/book", "run=runs/wide", "model.vocab_size=3000", *small)
    assert "next: legollm generate runs/wide/checkpoint" in said.out
    (curves,) = re.findall(r"(?m)^curves: legollm (.+)$", said.out)
    legollm(*curves.split())
    assert "<svg" in Path("runs/wide/report.html").read_text(encoding="utf-8")
    assert "guessing among" not in caplog.text  # the first loss is that of 3,000 ids
    assert legollm("generate", "runs/wide", "Mira", "max_new_tokens=40").out.startswith("Mira")
    assert not Path("runs/wide/tokenizer.json").exists()
    legollm("train", "data.source=book.txt", "tokenizer=runs/wide", "run=runs/second", *small)
    assert load_tokenizer("runs/second").fingerprint == load_tokenizer("tok.json").fingerprint


@pytest.mark.parametrize("text", ["data.prepared=data/book", "data.source=book.txt"])
@pytest.mark.parametrize("model", [RUN, f"{RUN}/checkpoint"])
def test_eval_is_the_runs_own_last_evaluation(home: Path, model: str, text: str) -> None:
    last = read_rows(Path(RUN) / "metrics.jsonl")[-1]
    figures = legollm("eval", model, text, "--json").json
    assert figures["loss"] == pytest.approx(last["val_loss"], rel=1e-6)
    assert figures["bits_per_byte"] == pytest.approx(last["val_bpb"], rel=1e-6)
    assert figures["n_tokens"] == last["val_tokens"]
    own = legollm("eval", model, "--json").json  # nothing said: what the run kept for validation
    assert (own["loss"], own["n_tokens"]) == (figures["loss"], figures["n_tokens"])
    assert own["text"] == f"{Path('data/book')}, the run's own validation split"
    assert figures["text"] == text.partition("=")[2]
    assert f"{figures['loss']:.4f} nats per token" in legollm("eval", model, text, "batch_size=3").out


def test_eval_reads_each_document_by_itself(home: Path, lm: Loaded) -> None:
    """After the token that ends a text, in each of several ways to cut it into windows."""
    notes = "|".join(f"Mira put the key in box {i} and left." for i in range(40))
    Path("notes.txt").write_text(notes, encoding="utf-8")
    prepared = ("tokenizer=tok.json", "folder=data/notes", "data.read.separator=|", "data.val_fraction=0.5")
    legollm("data", "prepare", "notes.txt", *prepared)
    words = ("eval", RUN, "data.prepared=data/notes", "--json")
    whole = legollm(*words, "stride=96").json
    short = [legollm(*words, f"stride={stride}", "seq_len=9", "batch_size=3").json for stride in (1, 5)]
    tokens = TokenFile(Path("data/notes"), "val")
    starts = [*tokens.document_starts.tolist(), len(tokens)]
    (end,) = lm.stop_ids()
    nats = 0.0
    for start, stop in pairwise(starts):
        text = torch.tensor([[end, *tokens.ids[start:stop].tolist()]])
        with torch.no_grad():
            log_probs = lm.model(text[:, :-1])[0].log_softmax(-1)
        nats -= float(log_probs.gather(1, text[0, 1:, None]).sum())
    assert whole["loss"] == pytest.approx(nats / len(tokens), rel=1e-6)
    assert [one["n_tokens"] for one in (whole, *short)] == [len(tokens)] * 3
    assert [one["n_documents"] for one in (whole, *short)] == [len(starts) - 1] * 3
    assert len({one["loss"] for one in (whole, *short)}) == 3  # less context, another loss
    assert 0 < whole["loss_half_interval"] < 0.2
    assert f"{len(starts) - 1} documents" in legollm(*words[:-1], "stride=96").out


def test_eval_takes_a_test(answering: Path) -> None:
    """Choices, sums and stories, in the shell and as a file with every answer."""
    rows = [{"goal": f"go {i}", "sol1": "walk there", "sol2": "run", "label": i % 2} for i in range(6)]
    Path("valid.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    words = ("eval", RUN, "task=piqa", "source=valid.jsonl", "output=choices.jsonl")
    found = legollm(*words, "--json").json
    told = read_rows(Path("choices.jsonl"))
    assert found["acc"]["value"] == sum(row["acc"] for row in told) / 6
    assert found["chance"] == 0.5
    assert found["acc"]["low"] < found["acc"]["value"] < found["acc"]["high"] or found["acc"]["value"] in (0, 1)
    assert "picking at random gets 50.0%" in legollm(*words, "batch_size=1").out
    assert [row["choices"][0]["log_prob"] for row in told] == pytest.approx(
        [row["choices"][0]["log_prob"] for row in read_rows(Path("choices.jsonl"))], abs=1e-4
    )
    asked = ("eval", str(answering), "task=world", "n_items=4", "kinds=[add]", "max_new_tokens=3", "output=sums.jsonl")
    drawn = legollm(*asked, "n_samples=3", "temperature=1", "k=[1,3]", "--json").json
    assert [len(row["samples"]) for row in read_rows(Path("sums.jsonl"))] == [3] * 4
    assert drawn["exact_match"]["n"] == drawn["pass@3"]["n"] == 4
    assert legollm(*asked).out.startswith("world: 4 questions; in brackets")


def test_generate_is_decided_by_its_seed(home: Path, lm: Loaded) -> None:
    words = ("generate", RUN, "Mira put the key", "max_new_tokens=12")
    texts = [legollm(*words, f"seed={seed}").out for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == f"Mira put the key{lm.generate('Mira put the key', max_new_tokens=12, seed=3)}\n"
    result = legollm(*words, "seed=3", "--json").json
    assert f"{result['prompt']}{result['text']}\n" == texts[0]
    assert (result["n_tokens"], result["finish_reason"]) == (12, "length")
    assert legollm(*words[:2], *words[3:], "seed=3", given="Mira put the key").out == texts[0]
    assert legollm(*words, "seed=3", "decoding.use_cache=false").out == texts[0]


def test_generate_from_nothing_begins_a_text(home: Path, lm: Loaded) -> None:
    (end,) = lm.stop_ids()
    found = legollm("generate", RUN, "", "max_new_tokens=5", "temperature=0").out
    assert found == f"{lm.generate([end], max_new_tokens=5, temperature=0)}\n"


def test_settings_of_decoding_are_not_dropped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a window the other ones were once ignored."""
    from legollm.commands import generate

    seen = []
    real = generate.stream_text  # type: ignore[attr-defined]

    def spy(*arguments: Any, **settings: Any) -> Any:
        seen.append(settings["decoding"])
        return real(*arguments, **settings)

    monkeypatch.setattr(generate, "stream_text", spy)
    legollm("generate", RUN, "Mira", "max_new_tokens=2", "decoding.prefill_chunk=3", "decoding.use_cache=false")
    assert (seen[0].prefill_chunk, seen[0].use_cache, seen[0].window, seen[0].on_overflow) == (3, False, 96, "crop")


def test_the_package_in_python(home: Path, lm: Loaded) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0.8, "top_p": 0.9, "seed": 1}
    text = lm.generate("Mira put the key", **settings)
    assert package.load(f"{RUN}/checkpoint").generate("Mira put the key", **settings) == text
    assert "".join(lm.stream("Mira put the key", **settings)) == text
    prompt = lm.text_side().encode("Mira put the key")
    assert lm.generate(prompt, **settings) == text
    ids = list(lm.stream(prompt, as_ids=True, **settings))
    assert ids == list(lm.stream("Mira put the key", as_ids=True, **settings))
    assert len(ids) <= 9
    assert lm.text_side().decode(ids).startswith(text)
    assert len(list(islice(lm.stream("Mira", max_new_tokens=10_000), 2))) == 2
    assert lm.config.d_model == 32
    assert sum(p.numel() for p in lm.model.parameters()) > 0
    with pytest.raises(ConfigError, match=r"temprature: no such setting; did you mean temperature\?"):
        lm.generate("Mira", temprature=0)
    with pytest.raises(ConfigError, match="temperature: found -1"):
        lm.stream("Mira", temperature=-1)
    assert "load" in package.__all__


def test_a_conversation(answering: Path) -> None:
    words = ("chat", str(answering), "max_new_tokens=6", "seed=5", "system=Be brief.")
    lines = ["Where is number 3?", "/retry", "", "/what", "/new", "/retry", "Where is number 3?", "/quit", "not read"]
    said = legollm(*words, given="\n".join(lines))
    lm = package.load(answering)
    prompt = lm.chat_prompt([Message("system", "Be brief."), Message("user", lines[0])])
    first, again = (lm.generate(prompt, max_new_tokens=6, seed=seed) for seed in (5, 6))
    assert said.out == f"{first}\n{again}\n{again}\n"
    assert said.err.count("commands: /new") == 2  # at the start, and after /what
    assert "nothing to answer again" in said.err
    assert legollm(*words, given=lines[0]).out == f"{first}\n\n"  # the input ends without /quit


def test_a_conversation_remembers_what_was_said(answering: Path) -> None:
    said = legollm("chat", str(answering), "max_new_tokens=4", "temperature=0", given="One?\nTwo?\n").out
    lm = package.load(answering)
    first = lm.generate(lm.chat_prompt([Message("user", "One?")]), max_new_tokens=4, temperature=0)
    turns = [Message("user", "One?"), Message("assistant", first), Message("user", "Two?")]
    second = lm.generate(lm.chat_prompt(turns), max_new_tokens=4, temperature=0)
    assert said == f"{first}\n{second}\n\n"


def test_a_long_conversation_forgets_whole_exchanges(answering: Path) -> None:
    lm = package.load(answering)
    system, last = Message("system", "Be brief."), Message("user", "And now?")
    said = [Message(*turn) for i in range(8) for turn in (("user", f"Question {i}?"), ("assistant", f"answer {i}"))]
    for n_new in range(1, 60, 4):
        room = 96 - min(n_new, 48)
        talk = Conversation(
            lm, Sampling(max_new_tokens=n_new), lm.decoding(Decoding(on_overflow="crop")), system.content
        )
        talk.messages += [*said, last]
        kept = talk.fitting()
        n_kept = len(kept) - 2
        assert kept == [system, *said[len(said) - n_kept :], last]
        assert kept[1].role == "user"
        assert n_kept == 0 or len(lm.chat_prompt(kept)) <= room
        assert len(lm.chat_prompt([system, *said[len(said) - n_kept - 2 :], last])) > room  # no more than it had to
    talk.messages = [Message("user", "so " * 500)]
    assert talk.fitting() == talk.messages


def test_a_base_model_continues_what_one_writes(home: Path, lm: Loaded) -> None:
    said = legollm("chat", RUN, "max_new_tokens=4", "temperature=0", given="Mira put\n")
    assert said.out == f"{lm.generate('Mira put', max_new_tokens=4, temperature=0)}\n\n"
    assert "was not fine-tuned to answer" in said.err


def test_both_shapes_of_conversations_train_the_same_model(answering: Path) -> None:
    legollm("sft", f"model={RUN}", "data.source=answers.jsonl", "run=runs/short", *LOOP)
    weights = [Path(f"{run}/checkpoint/model.safetensors").read_bytes() for run in (answering, "runs/short")]
    assert weights[0] == weights[1]
    base = Path(f"{RUN}/checkpoint/model.safetensors").read_bytes()
    assert base != weights[0]


def test_an_ejected_architecture_runs_alone(home: Path) -> None:
    legollm("eject", "gpt2", "alone.py")
    assert legollm("eject", "gpt2").out == Path("alone.py").read_text(encoding="utf-8")
    spec = importlib.util.spec_from_file_location("alone", "alone.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.gpt2(module.GPT2Config(vocab_size=11, max_seq_len=8, n_layers=1, n_heads=2, d_model=8))
    assert model(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, 11)
