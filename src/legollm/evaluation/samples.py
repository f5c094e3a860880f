"""Questions that a model answers in words or code, once or several times: which answers are right, and pass@k."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from legollm.data.benchmarks import Item
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding, half
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_texts
from legollm.interfaces import Tokenizer
from legollm.verifiers import Verdict
from legollm.verifiers.answers import shortened
from legollm.verifiers.code import FENCED, code_in
from legollm.verifiers.sandbox import SandboxConfig, run_code
from legollm.verifiers.verdict import RIGHT


class Sample(NamedTuple):
    """One answer and what is said of it."""

    text: str
    verdict: Verdict


class Answered(NamedTuple):
    """An item with all its answers, and how much of the prompt the model had no room for."""

    item: Item
    samples: tuple[Sample, ...]
    n_cut: int

    @property
    def n_right(self) -> int:
        return sum(one.verdict.is_right for one in self.samples)

    def passes_at(self, k: int) -> float:
        return pass_at_k(len(self.samples), self.n_right, k)


def pass_at_k(n: int, n_right: int, k: int) -> float:
    """The chance that of k answers drawn from n, n_right of them right, one is right (Chen et al. 2021,
    arXiv:2107.03374): without the bias of 1 - (1 - n_right / n) ** k, which draws the same one twice."""
    return 1 - math.comb(n - n_right, k) / math.comb(n, k)


def answer_all(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    prompts: Sequence[Sequence[int]],
    judge: Callable[[Item, str], Verdict],
    *,
    n_samples: int,
    sampling: Sampling,
    stop_ids: Collection[int],
    decoding: Decoding,
) -> list[Answered]:
    """n_samples answers to each item, judged. Sample j of item i draws with seed + i * n_samples + j, whatever it is
    batched with. A prompt that leaves no room for an answer loses its first tokens."""
    cropping = replace(decoding, on_overflow="crop")
    repeated = [prompt for prompt in prompts for _ in range(n_samples)]
    said = generate_texts(model, tokenizer, repeated, sampling, stop_ids=stop_ids, decoding=cropping)
    window = cropping.limit_of(model)
    room = None if window is None else max(window - sampling.max_new_tokens, half(window))
    found = []
    for i, (item, prompt) in enumerate(zip(items, prompts, strict=True)):
        texts = [one.text for one in said[i * n_samples : (i + 1) * n_samples]]
        samples = tuple(Sample(text, judge(item, text)) for text in texts)
        found.append(Answered(item, samples, 0 if room is None else max(0, len(prompt) - room)))
    return found


def run_tests(item: Item, said: str, cfg: SandboxConfig) -> Verdict:
    """Whether what was written after a prompt of code passes its tests, in the sandbox.

    What defines the function takes its place in the prompt, after the imports and helpers there; anything else goes on
    where the prompt ends. `check` and the code it checks run side by side: code that is written to cheat can pass.

    Raises:
        SandboxError: this machine cannot fence the code in.
    """
    code = code_in(said) if FENCED.search(said) else said
    begins = f"def {item.entry_point}("
    program = f"{item.prompt.rpartition(begins)[0]}{code}" if begins in code else item.prompt + code
    outcome = run_code(f"{program}\n\n{item.answer}\n", [f"check({item.entry_point})"], cfg)
    if outcome.stopped:
        return Verdict(0.0, f"the code was stopped: {outcome.stopped}")
    (result,) = outcome.results
    if "error" in result:
        return Verdict(0.0, f"ended with {shortened(result['error'])}")
    return RIGHT
