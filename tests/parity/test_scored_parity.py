"""Decoders with a head for scores against transformers' XForSequenceClassification, in both directions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from legollm.architectures import architecture
from legollm.architectures.scored import ScoredConfig, last_scores, with_scores
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder
from legollm.components.decoder import Decoder
from tiny_models import VOCAB, some_tokens, tiny_config, tiny_model

transformers = pytest.importorskip("transformers")

PAD = VOCAB - 1
CASES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "gpt2 labels": ("gpt2", ("bad", "fair", "good"), {}),
    "llama3 reward": ("llama3", ("reward",), {}),
    "llama3 tied labels": ("llama3", ("ham", "spam"), {"tie_embeddings": True}),
    "qwen3 reward": ("qwen3", ("reward",), {"tie_embeddings": False}),
}


def scored_model(base: str, labels: tuple[str, ...], changes: dict[str, Any]) -> tuple[ScoredConfig, Decoder]:
    cfg = ScoredConfig(base=tiny_config(base, **changes), labels=labels, pad_id=PAD)
    model = with_scores(tiny_model(base, **changes), len(labels), seed=1)
    model.lm_head.weight.data *= 20
    return cfg, model.eval()


def ragged() -> tuple[Tensor, Tensor]:
    """Three rows of unequal length, padded on the right: ids (3, 9) and lengths (3,)."""
    lengths = torch.tensor([9, 4, 6])
    tokens = some_tokens(3, 9, vocab_size=PAD)
    return tokens.masked_fill(torch.arange(9) >= lengths[:, None], PAD), lengths


@pytest.mark.parametrize("case", CASES)
def test_our_folder_is_theirs(case: str, tmp_path: Path) -> None:
    base, labels, _ = CASES[case]
    cfg, model = scored_model(*CASES[case])
    save_hf_folder(tmp_path, cfg.arch, cfg, model)
    cls = transformers.AutoModelForSequenceClassification
    other, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert type(other).__name__.removesuffix("ForSequenceClassification").lower() == base.replace("llama3", "llama")
    assert other.config.id2label == dict(enumerate(labels))
    tokens, lengths = ragged()
    with torch.no_grad():
        theirs = other.eval()(tokens).logits  # finds the last token by the id of padding
        assert theirs.std() > 0.05  # or equality says little
        torch.testing.assert_close(last_scores(model, tokens, lengths), theirs, rtol=0, atol=2e-5)
    found = load_hf_folder(tmp_path)
    assert found[:2] == (cfg.arch, cfg)
    assert torch.equal(last_scores(found[2], tokens, lengths), last_scores(model, tokens, lengths))


def test_their_folder_is_ours(tmp_path: Path) -> None:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": PAD}
    other = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**sizes, **heads)).eval()
    other.save_pretrained(tmp_path)
    arch, cfg, model = load_hf_folder(tmp_path)
    assert (arch, cfg.labels, cfg.pad_id) == ("llama3+score", ("LABEL_0", "LABEL_1"), PAD)
    assert architecture(arch).hugging_face.class_name == "LlamaForSequenceClassification"
    tokens, lengths = ragged()
    torch.testing.assert_close(last_scores(model, tokens, lengths), other(tokens).logits, rtol=0, atol=1e-5)
