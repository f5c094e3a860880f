"""A decoder with a head for scores."""

import json
from pathlib import Path

import pytest
import torch

import legollm
from legollm.architectures import architecture, build
from legollm.architectures.scored import ScoredConfig, last_scores, with_scores
from legollm.checkpoints.state import save_model
from legollm.cli import main
from legollm.errors import CheckpointError, ConfigError
from tiny_models import TINY, some_tokens, tiny_config, tiny_model

LENGTHS = torch.tensor([7, 1, 4])


@pytest.mark.parametrize("name", [name for name in TINY if name not in ("bigram", "ngram")])
def test_padding_changes_no_score(name: str) -> None:
    model, tokens = with_scores(tiny_model(name), 2), some_tokens(3, 7)
    together = last_scores(model, tokens, LENGTHS)
    alone = [model(tokens[i : i + 1, :n])[:, -1] for i, n in enumerate(LENGTHS.tolist())]
    assert together.shape == (3, 2)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    assert model(tokens).shape == (3, 7, 2)


@pytest.mark.parametrize("name", ["vanilla", "mixtral", "moe"])
def test_a_folder_gives_it_back(name: str, tmp_path: Path) -> None:
    cfg = ScoredConfig(base=tiny_config(name), labels=("value",))
    model = with_scores(tiny_model(name), 1)
    save_model(tmp_path / "model", model, cfg.arch, cfg, None)
    found = legollm.load(tmp_path / "model")
    assert (found.arch, found.config) == (f"{name}+score", cfg)
    assert torch.equal(found.model(some_tokens(2, 5)), model(some_tokens(2, 5)))
    with pytest.raises(CheckpointError, match="does not continue texts"):
        found.generate([1, 2])


def test_only_the_head_is_new_and_the_seed_decides_it() -> None:
    model = tiny_model("llama3", tie_embeddings=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    scored = with_scores(model, 3, seed=4)
    assert {name for name, _ in scored.named_parameters()} == before.keys() | {"lm_head.weight"}
    assert all(torch.equal(p, before[name]) for name, p in scored.named_parameters() if name in before)
    assert torch.equal(with_scores(tiny_model("llama3"), 3, seed=4).lm_head.weight, scored.lm_head.weight)
    assert not torch.equal(with_scores(tiny_model("llama3"), 3, seed=5).lm_head.weight, scored.lm_head.weight)


def test_what_cannot_score() -> None:
    with pytest.raises(ConfigError, match="without states"):
        with_scores(build("bigram", vocab_size=9), 1)
    with pytest.raises(ConfigError, match="different names"):
        ScoredConfig(base=tiny_config("gpt2"), labels=("a", "a"))
    with pytest.raises(ConfigError, match="llama3"):
        architecture("llama4+score")


def test_a_trained_decoder_learns_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether a text ends with an a or a b, from a base that has read such texts; then with adapters only."""
    monkeypatch.chdir(tmp_path)
    words = ["".join("ab"[(i >> k) % 2] for k in range(3 + i % 6)) for i in range(200)]
    Path("text.txt").write_text(" ".join(words) * 3)
    rows = [json.dumps({"text": word, "label": "ends in " + word[-1]}) for word in dict.fromkeys(words)]
    Path("rows.jsonl").write_text("\n".join(rows))
    small = ["model.arch=gpt2", "model.n_layers=1", "model.n_heads=2", "model.d_model=16", "model.max_seq_len=16"]
    loop = ["train.precision=float32", "train.eval_every=0", "data.val_fraction=0.3"]
    base = ["train", "data.source=text.txt", "tokenizer=char", *small, "train.max_steps=2", "run=base"]
    assert main([*base, *loop]) == 0
    train = ["classify", "train", "data.source=rows.jsonl", "base=base", "optim.lr=0.01", "optim.warmup_steps=5", *loop]
    for more in (["run=whole", "train.max_steps=40"], ["run=adapted", "lora.rank=4", "train.max_steps=60"]):
        capsys.readouterr()
        assert main([*train, *more]) == 0
        right, _, n_val = capsys.readouterr().out.split("right on unseen texts: ")[1].split()[:3]
        assert int(right) >= 0.9 * int(n_val)
    assert main(["classify", "label", "whole", "abba", "baab"]) == 0
    assert [line[:9] for line in capsys.readouterr().out.splitlines()] == ["ends in a", "ends in b"]
    assert main([*train, "run=other", "tokenizer=bpe", "model.n_layers=1"]) == 2
    assert "brings its model and tokenizer" in capsys.readouterr().err
