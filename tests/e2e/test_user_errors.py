"""What people do wrong: every verb says so in one line that names what was found, and leaves nothing half done."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from legollm.architectures import ARCHITECTURES
from legollm.architectures.gpt2 import GPT2Config
from legollm.checkpoints.state import save_model
from legollm.tokenizers import ByteTokenizer, CharTokenizer
from walker import legollm, train_base


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tokenizer, a prepared text and a run; and models that cannot do everything."""
    with contextlib.chdir(tmp_path_factory.mktemp("errors")):
        train_base(Path())
        config = GPT2Config(vocab_size=256, max_seq_len=16, n_layers=1, n_heads=2, d_model=8)
        model = ARCHITECTURES["gpt2"].build(config)
        letters = CharTokenizer()
        letters.train("abc ")
        save_model(Path("bytes"), model, "gpt2", config, ByteTokenizer())
        save_model(Path("letters"), model, "gpt2", config, letters)
        save_model(Path("mute"), model, "gpt2", config, None)
        Path("empty").mkdir()
        Path("empty.txt").write_text("", encoding="utf-8")
        Path("broken.json").write_text("{", encoding="utf-8")
        rows = {
            "question.jsonl": {"messages": [{"role": "user", "content": "Who?"}]},
            "wrong.jsonl": {"prompt": "Who?", "answer": 7},
            "other.jsonl": {"text": "a document"},
            "long.jsonl": {"prompt": "so " * 200, "answer": "yes"},
        }
        for name, row in rows.items():
            Path(name).write_text(f"{json.dumps(row)}\n" * 3, encoding="utf-8")
        yield Path()


NO_FOLDER = (1, "nowhere: no such folder")
NO_SOURCE = (2, "missing.txt")


WRONG = [
    # no model, or not that kind of one
    ("generate nowhere Mira", *NO_FOLDER),
    ("generate runs/bsae Mira", 1, "runs/bsae: no such folder; did you mean runs/base?"),
    ("generate empty Mira", 1, "empty: no config.json in it"),
    ("generate mute Mira", 1, "mute: has no tokenizer.json"),
    ("chat nowhere", *NO_FOLDER),
    ("eval nowhere", *NO_FOLDER),
    ("eval mute data.source=book.txt", 1, "mute: has no tokenizer.json"),
    ("sft model=nowhere data.source=answers.jsonl run=runs/x", *NO_FOLDER),
    ("sft model=bytes data.source=answers.jsonl run=runs/x", 2, "no token that ends a turn"),
    # tokenizers
    ("tokenizer compare book.txt tokenizers=[]", 2, "tokenizers: found none"),
    ("tokenizer encode nowhere.json hi", 2, "nowhere.json: cannot be read"),
    ("tokenizer encode letters/tokenizer.json a\udcff", 2, "text: character 1 is no UTF-8"),
    # prompts
    ("generate bytes ''", 2, "prompt: empty, and this model has no token that starts a text"),
    ("generate letters xyz", 2, "character 'x' (U+0078) at position 0 is not in the vocabulary"),
    ("generate runs/base LONG decoding.on_overflow=error", 2, "tokens, the window holds 96"),
    ("generate runs/base Mira decoding.on_overflow=crash", 2, "on_overflow"),
    ("generate bytes Mira decoding.window=17", 2, "window: found 17, but the model knows 16 positions"),
    ("generate runs/base Mira temperature=-1", 2, "temperature: found -1"),
    ("generate runs/base Mira temprature=1", 2, "did you mean temperature?"),
    # tokenizers
    ("tokenizer encode missing.json Mira", 2, "missing.json"),
    ("tokenizer encode broken.json Mira", 2, "broken.json"),
    ("tokenizer encode empty Mira", 2, "empty: no tokenizer here"),
    ("tokenizer decode tok.json ids=[1,320]", 2, "320"),
    ("tokenizer decode tok.json ids=[-1]", 2, "-1"),
    ("tokenizer decode tok.json", 2, "standard input: expected ids, found 'Mira'"),
    ("tokenizer train missing.txt out=new.json", *NO_SOURCE),
    ("tokenizer train book.txt tokenizer=tok.json out=new.json", 2, "tokenizer.kind: to train is one of"),
    ("tokenizer train book.txt tokenizer=bqe out=new.json", 2, "did you mean bpe?"),
    ("tokenizer train book.txt tokenizer.vocab_size=100 out=new.json", 2, "100"),
    ("tokenizer train book.txt tokenizer=char tokenizer.vocab_size=99 out=new.json", 2, "99 cannot be: tokenizer=char"),
    ("train data=book.txt tokenizer=tok.json tokenizer.vocab_size=99 run=runs/x", 2, "is trained already and has"),
    ("train model.arch=t5 run=runs/x", 2, "model.arch: t5 learns from pairs, not from text alone; use legollm seq2seq"),
    ("tokenizer train book.txt out=book.txt/new.json", 1, "legollm: book.txt/new.json: "),
    ("tokenizer train book.txt tokenizer.pattern=( out=new.json", 2, "("),
    ("tokenizer compare data=book.txt tokenizers=[byte,nothing]", 2, "nothing"),
    ("tokenizer compare data=missing.txt", *NO_SOURCE),
    # data
    ("data prepare missing.txt folder=data/x", *NO_SOURCE),
    ("data prepare empty.txt folder=data/x", 2, "empty.txt:1: the file is empty"),
    ("data prepare book.txt folder=data/x tokenizer=letters", 2, "is not in the vocabulary"),
    ("data prepare book.txt folder=data/x data.val_fraction=1", 2, "val_fraction: a share between 0 and 1"),
    ("data summary missing.txt", *NO_SOURCE),
    ("data summary book.txt tokenizer=missing.json", 2, "missing.json"),
    ("data summary empty.txt", 2, "empty.txt:1: the file is empty"),
    ("data get nothing", 2, "name: 'nothing' is none of"),
    # training
    ("train data.source=missing.txt run=runs/x", *NO_SOURCE),
    ("train data.source=data/book run=runs/x", 2, "no text; training takes data.prepared=data/book"),
    ("train data.prepared=empty run=runs/x", 2, "empty"),
    ("train data.prepared=nowhere run=runs/x", 2, "nowhere"),
    ("train data.prepared=data/book run=runs/base seed=1", 2, "seed: runs/base was started with 1337, now it is 1"),
    ("train data.prepared=data/book run=runs/x train.seq_len=300", 2, "is more than model.max_seq_len = 256"),
    # fine-tuning
    ("sft model=runs/base data.source=missing.jsonl run=runs/x", 2, "missing.jsonl"),
    ("sft model=runs/base data.source=question.jsonl run=runs/x", 2, "question.jsonl:1: no turn of the assistant"),
    ("sft model=runs/base data.source=wrong.jsonl run=runs/x", 2, "wrong.jsonl:1: answer: expected text, found 7"),
    ("sft model=runs/base data.source=other.jsonl run=runs/x", 2, "other.jsonl:1: expected the fields of one of these"),
    ("sft model=runs/base data.source=long.jsonl run=runs/x", 2, "starts with 'so so so"),
    # evaluation
    ("eval runs/base data.source=missing.txt", *NO_SOURCE),
    ("eval runs/base data.prepared=nowhere", 2, "nowhere: no meta.json"),
    ("eval bytes data.prepared=data/book", 2, "data/book: written by another tokenizer"),
    ("eval runs/base data.source=book.txt seq_len=97", 2, "seq_len: 97 is more than the model's 96"),
    ("eval runs/base data.source=book.txt seq_len=-1", 2, "seq_len: must be at least 1, found -1"),
    ("eval runs/base data.source=book.txt batch_size=0", 2, "batch_size: must be at least 1, found 0"),
    ("eval runs/base data.source=book.txt stride=97", 2, "stride: 97 is more than seq_len = 96"),
    ("eval runs/base n_items=3", 2, "n_items: goes with task=..."),
    ("eval runs/base task=wrld", 2, "did you mean world?"),
    ("eval runs/base task=mmlu", 2, "source: task=mmlu reads a file that lies here"),
    ("eval runs/base task=mmlu source=nowhere", 2, "nowhere: no such file or folder"),
    ("eval runs/base task=mmlu source=book.txt", 2, "book.txt:1: expected question, four choices and a letter"),
    ("eval runs/base task=gsm8k source=question.jsonl", 2, "question.jsonl:1: answer: expected text"),
    ("eval runs/base task=world stride=3", 2, "stride: goes with a text"),
    ("eval runs/base task=world data.source=book.txt", 2, "data: goes with a text"),
    ("eval runs/base task=world source=book.txt", 2, "world makes its questions itself"),
    ("eval runs/base task=world k=[2]", 2, "k: from 1 to n_samples=1, found [2]"),
    ("eval runs/base task=world n_samples=2", 2, "temperature: 0 writes the same answer each time"),
    ("eval runs/base task=world split=test", 2, "split: the world has train and val, found 'test'"),
    ("eval runs/base task=arc source=book.txt split=test", 2, "split: book.txt is a file, which has one"),
    ("eval runs/base task=arc source=book.txt shots=book.txt n_shots=0", 2, "shots: with n_shots=0 none is shown"),
    ("eval runs/base task=mmlu source=book.txt seed=3", 2, "seed: goes with written answers, and task=mmlu compares"),
    ("lm-eval runs/base tasks=[]", 2, "tasks: found none"),
    ("lm-eval runs/base tasks=[x] include=nowhere", 2, "include: nowhere is no folder"),
    # eject
    ("eject gpt3", 2, "name: 'gpt3' is none of ngram, bigram, "),
    ("eject gpt2 nowhere/alone.py", 1, "nowhere/alone.py: No such file or directory"),
]


@pytest.mark.parametrize(("words", "status", "said"), WRONG)
def test_one_line_says_what_is_wrong(home: Path, words: str, status: int, said: str) -> None:
    arguments = [{"LONG": "Mira put the key in the box. " * 20, "''": ""}.get(word, word) for word in words.split()]
    found = legollm(*arguments, given="Mira", status=status)
    assert said in found.err
    assert found.out == ""
    assert not Path("new.json").exists()
    assert not list(Path("runs").glob("x/checkpoints/step-*"))


def test_a_character_that_cannot_be_read_does_not_end_a_conversation(home: Path) -> None:
    said = legollm("chat", "letters", "max_new_tokens=3", "temperature=0", "stop_ids=[]", given="ab\nxyz\nab\n")
    first, second, _ = said.out.splitlines()
    assert first == second
    assert "character 'x' (U+0078) at position 0" in said.err


def test_a_failed_start_does_not_stand_in_the_way_of_the_next(home: Path) -> None:
    """After each refusal above, the same folder takes a right command."""
    words = ("sft", "model=runs/base", "run=runs/again", "train.max_steps=1")
    legollm(*words, "data.source=wrong.jsonl", status=2)
    legollm(*words, "data.source=answers.jsonl")
