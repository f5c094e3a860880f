"""Numbers and tags for texts: read, learned by small models, and measured as by hand."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import legollm
from legollm.architectures.gpt2 import GPT2Config, gpt2
from legollm.architectures.scored import ScoredConfig, with_scores
from legollm.commands.label_tasks import TASKS, example_of, fit_line, labels_of, outputs, tag_table, tagged
from legollm.data.pairs import TaggedText, TextNumber, TextPair, read_numbers, read_tagged, tag_batch
from legollm.errors import DataError
from legollm.tokenizers import ByteTokenizer
from legollm.training.objective import IGNORED
from legollm.training.pairs import TagOfWord
from walker import legollm as run

TINY = GPT2Config(vocab_size=256, max_seq_len=20, n_layers=1, n_heads=2, d_model=16, dropout=0.0)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_word_is_judged_at_its_last_token() -> None:
    row = TaggedText(("ab", "c", "d"), ("X", "Y", "X"))
    one: Any = example_of(row, ["X", "Y"], ByteTokenizer(), ScoredConfig(base=TINY, labels=("X", "Y"), per_token=True))
    assert (bytes(one.ids), one.ends, one.tags) == (b"ab c d", [1, 3, 5], [0, 1, 0])
    batch = tag_batch([one, tagged(["e"], ByteTokenizer(), 20)])
    assert batch.tags.tolist() == [[IGNORED, 0, IGNORED, 1, IGNORED, 0], [0] + [IGNORED] * 5]
    assert TagOfWord().n_terms(batch) == 4
    model = with_scores(gpt2(TINY), 2).eval()
    first, second = outputs(model, [one, tagged(["e"], ByteTokenizer(), 20)], 8)
    assert first.shape == (3, 2)
    torch.testing.assert_close(second, model(torch.tensor([list(b"e")]))[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(first, model(torch.tensor([one.ids]))[0, one.ends], rtol=0, atol=1e-6)
    loss = TagOfWord()(model, tag_batch([one]))
    torch.testing.assert_close(loss, -first.log_softmax(-1)[range(3), one.tags].sum())
    with pytest.raises(DataError, match="has 23 tokens, the model reads 20"):
        tagged(["a"] * 12, ByteTokenizer(), 20)


def test_figures_by_hand() -> None:
    assert fit_line([1.0, 2.0, 4.0], [1.0, 3.0, 5.0]) == "unseen texts: mean distance 0.6667, R^2 0.750"
    assert fit_line([1.0], [2.0]).endswith("R^2 without meaning, all are equal")
    pairs = [("A", "A"), ("A", "B"), ("B", "B"), ("A", "A")]
    first, second, *tags = tag_table(pairs)
    assert first.startswith("right on words of unseen texts: 75.0% (3 of 4")
    assert second == f"F1, the mean over tags: {(0.8 + 2 / 3) / 2:.3f}"
    assert tags == ["  A  right 2 of 2, F1 0.800", "  B  right 1 of 2, F1 0.667"]


def test_labels_are_those_of_the_rows() -> None:
    assert labels_of([TextPair("a", "y"), TextPair("b", "x")], Path()) == ("x", "y")
    assert labels_of([TextNumber("a", 1.0)], Path()) == ("value",)
    assert labels_of([TaggedText(("a", "b"), ("y", "x"))], Path()) == ("x", "y")
    with pytest.raises(DataError, match="'x' is the only label"):
        labels_of([TaggedText(("a",), ("x",))], Path("f"))


def test_malformed_rows_are_named(tmp_path: Path) -> None:
    numbers = written(tmp_path / "n.jsonl", [{"text": "a", "label": 3}, {"text": "b", "label": True}])
    with pytest.raises(DataError, match=r"n.jsonl:2: expected a number in the field 'label', found True"):
        read_numbers(numbers, "text", "label")
    words = written(tmp_path / "w.jsonl", [{"tokens": ["a"], "tags": ["x"]}, {"tokens": ["a", "b"], "tags": ["x"]}])
    with pytest.raises(DataError, match=r"w.jsonl:2: 1 tags for 2 tokens; give one for each"):
        read_tagged(words, "tokens", "tags")
    with pytest.raises(DataError, match=r"w.jsonl:1: expected a list of texts in the field 'label', found None"):
        read_tagged(words, "tokens", "label")
    (tmp_path / "none.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no rows in it; give one JSON object with 'tokens' and 'tags' a line"):
        read_tagged(tmp_path / "none.jsonl", "tokens", "tags")
    assert set(TASKS) == {"classes", "regression", "tags"}


LOOP = ["train.precision=float32", "train.eval_every=0", "train.save_every=0", "optim.warmup_steps=10", "optim.lr=0.01"]
SMALL = ["model.n_layers=1", "model.n_heads=2", "model.d_model=32", "model.max_seq_len=64"]


@pytest.mark.slow
def test_a_number_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of letters x in a text, by an encoder."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    texts = [
        "".join(draw.choice(draw.choice(("ab", "xa", "xx"))) for _ in range(draw.randrange(4, 12))) for _ in range(400)
    ]
    rows = [{"text": text, "label": text.count("x") / len(text)} for text in dict.fromkeys(texts)]
    written(tmp_path / "rows.jsonl", rows)
    words = ["data.source=rows.jsonl", "task=regression", "tokenizer=char", "run=run", "train.max_steps=120"]
    out = run("classify", "train", *words, "model.d_ff=32", *SMALL, *LOOP).out
    assert float(out.split("R^2 ")[1].split()[0]) >= 0.8
    lines = run("classify", "label", "run", "xxxxxx", "aaaaaa").out.splitlines()
    high, low = (float(line.split()[0]) for line in lines)
    assert high > 0.7 > 0.3 > low
    assert json.loads((tmp_path / "run/checkpoint/config.json").read_text())["problem_type"] == "regression"


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True])
def test_words_are_tagged(adapted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, names and other words, by a decoder that has read such texts."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    words = {"NAME": ["Mira", "Tom", "Ada"], "NUMBER": ["7", "12", "350"], "WORD": ["put", "the", "key", "in"]}
    rows = []
    for _ in range(300):
        tags = [draw.choice(list(words)) for _ in range(draw.randrange(2, 7))]
        rows.append({"tokens": [draw.choice(words[tag]) for tag in tags], "tags": tags})
    written(tmp_path / "rows.jsonl", rows)
    Path("text.txt").write_text("\n".join(" ".join(row["tokens"]) for row in rows))
    run(
        "train",
        "data.source=text.txt",
        "tokenizer=char",
        "model.arch=gpt2",
        *SMALL,
        "train.max_steps=30",
        "run=base",
        *LOOP,
    )
    line = ["classify", "train", "data.source=rows.jsonl", "task=tags", "run=run", "train.max_steps=60", *LOOP]
    assert "base: task=tags gives tags with a trained decoder" in run(*line, status=2).err
    out = run(*line, "base=base", *(["lora.rank=4"] if adapted else [])).out
    assert float(out.split("unseen texts: ")[1].split("%")[0]) >= 95
    assert float(out.split("mean over tags: ")[1].split()[0]) >= 0.95
    assert run("classify", "label", "run", "Ada put 350  key").out == "Ada/NAME put/WORD 350/NUMBER key/WORD\n"
    assert legollm.load("run").config.per_token


@pytest.mark.slow
def test_real_messages_are_told_from_spam(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shared_data / "tasks" / "sms-spam.tsv"
    if not source.exists():
        pytest.skip(f"there is no {source}")
    monkeypatch.chdir(tmp_path)
    with source.open(encoding="utf-8", newline="") as file:
        rows = [
            {"label": label, "text": text} for label, text in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    short = {kind: [row for row in rows if row["label"] == kind and len(row["text"]) < 150] for kind in ("ham", "spam")}
    written(tmp_path / "sms.jsonl", [row for kind in short.values() for row in random.Random(0).sample(kind, 350)])
    words = ["data.source=sms.jsonl", "run=run", "tokenizer=bpe", "tokenizer.vocab_size=512", "data.val_fraction=0.2"]
    sizes = ["model.n_layers=1", "model.n_heads=2", "model.d_model=32", "model.d_ff=64", "model.max_seq_len=160"]
    out = run("classify", "train", *words, *sizes, *LOOP, "train.max_steps=50", "train.batch_size=16").out
    assert float(out.split("(")[1].split("%")[0]) >= 80, out  # half of them are spam
