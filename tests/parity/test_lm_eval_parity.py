"""Against lm-evaluation-harness and its model class for transformers, on a tiny model and on items of MMLU.

What it gave is written down here as GOLDEN, so that a machine without it still compares: HFLM of lm_eval 0.4.13 over
transformers 5.23 in float32, in nats. `python tests/parity/test_lm_eval_parity.py` prints the numbers anew.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from legollm.architectures import ARCHITECTURES
from legollm.architectures.gpt2 import GPT2Config
from legollm.checkpoints.loading import Loaded, load
from legollm.checkpoints.state import save_model
from legollm.commands.beginning import prompts_of
from legollm.commands.harness_model import harness_class
from legollm.data import world
from legollm.data.benchmarks import BENCHMARKS, before, read_items, shots_of
from legollm.evaluation.choices import judge_all
from legollm.evaluation.likelihood import fitted, log_likelihoods
from legollm.evaluation.windows import windows
from legollm.tokenizers import RegexBPETokenizer

TEXT = "".join(world.corpus(1, 9_000, "val"))
PAIRS = [
    ("Mira put the key in the box.", " Then she went to the mill."),
    ("Mira put the key in the box. ", "Then she went to the mill."),
    ("Mira put the k", "ey in the box."),
    ("", "Mira put the key"),
    ("The answer is:", " A"),
    ("The answer is:", " B"),
    (TEXT[:2000], TEXT[2000:2040]),  # longer than the model reads
]
ROLLED = [TEXT[:60], TEXT[:900]]
GREEDY = [("Mira put the key", {"until": ["\n", "zz"], "max_gen_toks": 9, "do_sample": False}), (TEXT[:2000], {})]
N_MMLU = 3
GOLDEN: dict[str, list[float]] = {
    "pairs": [-74.70854, -74.70854, -53.19152, -55.02826, -8.41057, -7.58253, -97.00978],
    "rolled": [-153.83405, -2177.05777],
    "begins": [-75.51755, -75.51755, -51.60405, -52.12503, -8.30528, -7.47597, -97.00978],
    "mmlu": [
        -9.16073,
        -7.16518,
        -13.23535,
        -13.51114,
        -8.51458,
        -7.88292,
        -12.97975,
        -12.91942,
        -7.30307,
        -7.7235,
        -13.92049,
        -13.67963,
    ],
}


def write_model(folder: Path, *, begins: bool = False) -> Loaded:
    """A model that needs no training: the scale of its weights makes every part of it matter.

    begins: whether its tokenizer puts a token before every text, as that of LLaMA 3 does.
    """
    tokenizer = RegexBPETokenizer("gpt2")
    tokenizer.train(TEXT, vocab_size=600, special_tokens=["<|endoftext|>", "<|begin|>"])
    config = GPT2Config(vocab_size=600, max_seq_len=96, n_layers=2, n_heads=4, d_model=32)
    model = ARCHITECTURES["gpt2"].build(config, 0)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            places = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter += (0.3 * torch.sin(places * 12.9898 + i).mul(43758.5453).sin()).float().view(parameter.shape)
    roles = {"eos": "<|endoftext|>"} | ({"bos": "<|begin|>"} if begins else {})
    save_model(folder, model, "gpt2", config, tokenizer, **roles)
    if begins:
        begin = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}
        first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
        ids = {"id": "<|begin|>", "ids": [tokenizer.special_tokens["<|begin|>"]], "tokens": ["<|begin|>"]}
        path = folder / "tokenizer.json"
        document = json.loads(path.read_bytes())
        document["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, begin, second],
            "special_tokens": {"<|begin|>": ids},
        }
        path.write_text(json.dumps(document), encoding="utf-8")
        (folder / "manifest.json").unlink()
    return load(folder)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def lm_that_begins(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return write_model(tmp_path_factory.mktemp("model") / "tiny", begins=True)


def ours(lm: Loaded, batch_size: int = 4) -> dict[str, list[float]]:
    """What this package says."""
    prompts = prompts_of(lm)
    asked = [fitted(prompts.pairs(context, [end])[0], 96)[0] for context, end in PAIRS]
    found = {"pairs": [one.log_prob for one in log_likelihoods(lm.writer, asked, batch_size=batch_size)]}
    found["rolled"] = []
    for text in ROLLED:
        ids = [prompts.begin, *lm.text_side().encode(text)]
        parts = [window.of(ids) for window in windows(len(ids), seq_len=96, stride=96)]
        found["rolled"].append(sum(one.log_prob for one in log_likelihoods(lm.writer, parts)))
    return found


def mmlu_of(lm: Loaded, source: Path) -> tuple[list[float], list[tuple[str, str]]]:
    """The first items of a subject after five worked examples: log p of each choice, and what was asked."""
    mmlu = BENCHMARKS["mmlu"]
    items = read_items(mmlu, source, None, ("philosophy",), N_MMLU)
    shots = shots_of(mmlu, source, items, 5)
    heads = [before(mmlu, item, shots[item.kind]) for item in items]
    judged = judge_all(lm.writer, prompts_of(lm), items, heads, window=96, batch_size=5)
    pairs = [(head + item.prompt, f" {letter}") for head, item in zip(heads, items, strict=True) for letter in "ABCD"]
    return [said.log_prob for one in judged for said in one.said], pairs


def test_equal_to_what_lm_eval_gave(lm: Loaded) -> None:
    found = ours(lm)
    for name, values in found.items():
        assert values == pytest.approx(GOLDEN[name], abs=1e-4, rel=1e-6), name
    again = ours(lm, batch_size=1)
    assert again["pairs"] == pytest.approx(found["pairs"], abs=1e-4)


def test_equal_also_where_a_token_begins_every_text(lm_that_begins: Loaded) -> None:
    assert ours(lm_that_begins)["pairs"] == pytest.approx(GOLDEN["begins"], abs=1e-4)


def test_equal_to_what_lm_eval_gave_on_mmlu(lm: Loaded, shared_data: Path) -> None:
    values, _ = mmlu_of(lm, shared_data / "tasks" / "mmlu")
    assert values == pytest.approx(GOLDEN["mmlu"], abs=1e-4)


def instances(kind: str, asked: list[Any]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one if isinstance(one, tuple) else (one,), i) for i, one in enumerate(asked)]


@pytest.fixture(scope="module")
def theirs(lm: Loaded) -> Any:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed; GOLDEN holds what it gave")
    return hflm(lm.folder)


def hflm(folder: Path) -> Any:
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", batch_size=3, dtype="float32")


def test_the_registered_class_is_the_other_one(lm: Loaded, theirs: Any) -> None:
    mine = harness_class()(str(lm.folder), batch_size=2)
    requests = instances("loglikelihood", PAIRS)
    for one, other in zip(mine.loglikelihood(requests), theirs.loglikelihood(requests), strict=True):
        assert one == (pytest.approx(other[0], abs=1e-4), other[1])
    requests = instances("loglikelihood_rolling", ROLLED)
    assert mine.loglikelihood_rolling(requests) == pytest.approx(theirs.loglikelihood_rolling(requests), abs=1e-3)
    requests = instances("generate_until", [(text, {"max_gen_toks": 12} | said) for text, said in GREEDY])
    assert mine.generate_until(requests) == theirs.generate_until(requests)


def test_the_numbers_here_are_what_lm_eval_gives(lm: Loaded, theirs: Any) -> None:
    for name, values in given(theirs).items():
        assert values == pytest.approx(GOLDEN[name], abs=1e-4, rel=1e-6)


@pytest.mark.slow
def test_a_task_gives_the_same_through_both(
    lm: Loaded, theirs: Any, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: task files of MMLU and GSM8K, worked examples and all, in lm_eval and in `legollm eval`."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    source, gsm8k = shared_data / "tasks" / "mmlu", shared_data / "tasks" / "gsm8k"
    files = {split: str(source / split / f"philosophy_{split}.csv") for split in ("test", "dev")}
    task = {
        "task": "mine",
        "dataset_path": "csv",
        "dataset_kwargs": {"column_names": ["question", "a", "b", "c", "d", "answer"], "data_files": files},
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": 5,
        "output_type": "multiple_choice",
        "description": "The following are multiple choice questions (with answers) about philosophy.\n\n",
        "doc_to_text": "{{question.strip()}}\nA. {{a}}\nB. {{b}}\nC. {{c}}\nD. {{d}}\nAnswer:",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    sums = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(gsm8k / f"{split}.jsonl") for split in ("test", "train")}},
        "test_split": "test",
        "fewshot_split": "train",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": 2,
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 9},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    for one in (task, sums):
        (tmp_path / f"{one['task']}.yaml").write_text(json.dumps(one), encoding="utf-8")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    items = read_items(BENCHMARKS["gsm8k"], gsm8k, None, (), N_MMLU)
    shots = shots_of(BENCHMARKS["gsm8k"], gsm8k, items, 2)["gsm8k"]
    written = []
    for model in (harness_class()(lm, batch_size=4), theirs):
        found = simple_evaluate(
            model=model, tasks=["mine", "sums"], task_manager=manager, limit=N_MMLU, bootstrap_iters=0
        )
        samples = sorted(found["samples"]["mine"], key=lambda sample: sample["doc_id"])
        values = [float(answer[0]) for sample in samples for answer in sample["filtered_resps"]]
        assert values == pytest.approx(GOLDEN["mmlu"], abs=1e-4)
        assert [sample["arguments"][0][0] for sample in samples] == [
            context for context, end in mmlu_of(lm, source)[1] if end == " A"
        ]
        samples = sorted(found["samples"]["sums"], key=lambda sample: sample["doc_id"])
        assert [sample["arguments"][0][0] for sample in samples] == [
            before(BENCHMARKS["gsm8k"], item, shots) + item.prompt for item in items
        ]
        # a character whose bytes were not all written is no text here, and U+FFFD there
        written.append([sample["filtered_resps"][0].rstrip("\ufffd") for sample in samples])
    assert written[0] == written[1]


def given(theirs: Any) -> dict[str, list[float]]:
    """What lm_eval says of the same."""
    pairs = theirs.loglikelihood(instances("loglikelihood", PAIRS), disable_tqdm=True)
    rolled = theirs.loglikelihood_rolling(instances("loglikelihood_rolling", ROLLED), disable_tqdm=True)
    return {"pairs": [value for value, _ in pairs], "rolled": rolled}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        model = write_model(Path(name) / "tiny")
        other = hflm(model.folder)
        numbers = given(other)
        beginning = hflm(write_model(Path(name) / "begins", begins=True).folder)
        numbers["begins"] = given(beginning)["pairs"]
        data = Path(os.environ.get("LEGOLLM_DATA", Path(__file__).parents[3] / "shared" / "data"))
        asked = mmlu_of(model, data / "tasks" / "mmlu")[1]
        numbers["mmlu"] = [value for value, _ in other.loglikelihood(instances("loglikelihood", asked))]
        print(json.dumps({key: [round(value, 5) for value in values] for key, values in numbers.items()}, indent=1))
