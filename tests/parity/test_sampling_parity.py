"""The steps of sampling against those of `transformers`, where both define the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from legollm.generation.sampling import Sampling, next_token_probs

transformers = pytest.importorskip("transformers", reason="the interop extra is not installed")
from transformers.generation import logits_process as theirs  # noqa: E402

STEPS: dict[str, tuple[Sampling, Callable[[], list[Callable[[Tensor, Tensor], Tensor]]]]] = {
    "temperature": (Sampling(temperature=0.7), lambda: [theirs.TemperatureLogitsWarper(0.7)]),
    "top_k": (Sampling(top_k=11), lambda: [theirs.TopKLogitsWarper(11)]),
    "top_p": (Sampling(top_p=0.8), lambda: [theirs.TopPLogitsWarper(0.8)]),
    "min_p": (Sampling(min_p=0.1), lambda: [theirs.MinPLogitsWarper(0.1)]),
    "repetition_penalty": (
        Sampling(repetition_penalty=1.3),
        lambda: [theirs.RepetitionPenaltyLogitsProcessor(1.3)],
    ),
    "typical_p": (Sampling(typical_p=0.7), lambda: [theirs.TypicalLogitsWarper(0.7)]),
    "eta_cutoff": (Sampling(eta_cutoff=0.02), lambda: [theirs.EtaLogitsWarper(0.02)]),
    "no_repeat_ngram": (Sampling(no_repeat_ngram=2), lambda: [theirs.NoRepeatNGramLogitsProcessor(2)]),
    "logit_bias": (
        Sampling(logit_bias=("3=2.5", "50=-100")),
        lambda: [theirs.SequenceBiasLogitsProcessor({(3,): 2.5, (50,): -100.0})],
    ),
    "all": (
        Sampling(repetition_penalty=1.2, temperature=1.4, top_k=30, top_p=0.9, min_p=0.02),
        lambda: [
            theirs.RepetitionPenaltyLogitsProcessor(1.2),
            theirs.TemperatureLogitsWarper(1.4),
            theirs.TopKLogitsWarper(30),
            theirs.TopPLogitsWarper(0.9),
            theirs.MinPLogitsWarper(0.02),
        ],
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_probabilities_equal_those_of_transformers(name: str) -> None:
    sampling, processors = STEPS[name]
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 101, generator=rng) * 3
    history = torch.randint(101, (300, 12), generator=rng)
    history[:, -1] = history[:, 2]  # so that something follows that followed before
    expected = logits
    for processor in processors():
        expected = processor(history, expected)
    torch.testing.assert_close(next_token_probs(logits, sampling, history), expected.softmax(-1), atol=1e-6, rtol=1e-5)
