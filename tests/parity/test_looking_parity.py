"""What is seen of a model against what the transformers library says of the same weights."""

from pathlib import Path

import pytest
import torch

from legollm.checkpoints.huggingface import save_hf_folder
from legollm.evaluation.looking import look
from tiny_models import some_tokens, tiny_config, tiny_model

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen3", "mixtral"])
def test_attention_and_states(name: str, tmp_path: Path) -> None:
    model, ids = tiny_model(name), some_tokens(11)
    save_hf_folder(tmp_path, name, tiny_config(name), model)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.inference_mode():
        theirs = other(ids[None], output_attentions=True, output_hidden_states=True)
    seen = look(model, ids)
    assert len(theirs.attentions) == len(seen.attention) == 2
    for block, weights in enumerate(theirs.attentions):
        torch.testing.assert_close(seen.attention[block], weights[0], rtol=1e-4, atol=1e-5)
    for state, hidden in zip(seen.states, theirs.hidden_states[:-1], strict=False):  # their last is after the norm
        torch.testing.assert_close(state, hidden[0], rtol=1e-4, atol=1e-4)
