"""How much faster guesses make writing: python benchmarks/bench_speculative.py [key=value ...].

    precisions=float32,bfloat16   of the lowered engine
    layers=12 width=768           of the target, in the shape of GPT-2 (124M parameters)
    draft_layers=2 draft_width=256
    prompt=64 new=96 rounds=3 lookahead=4 threads=2

Weights are random, and nobody can guess what such a model writes. So both sides play by a script: every pass of the
target and of the draft is carried out and timed, and then the target's choice is replaced by the token that the script
has next, and the draft's guess by the right token with a given probability, the acceptance, and a wrong one else. The
script is a circle of prompt tokens, so that the prompt already holds all that follows: copying, for lookup.

Rounds alternate between all rows, and the speed-up is of the medians. Rows that are not "adapted" guess `lookahead`
tokens each time. `accepted` is the share of all guesses, those after a wrong one included.
"""

import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from legollm.architectures import build
from legollm.generation.complete import Row, complete
from legollm.generation.drafts import Draft, ModelDraft, PromptLookup
from legollm.generation.sampling import Sampling
from legollm.generation.speculative import Speculation, Speculator
from legollm.interfaces import Cache
from legollm.lowering.decoder import LoweredDecoder


class Scripted(LoweredDecoder):
    """A target that computes everything and then says what its script has next; for one text at a time."""

    next_of: Tensor
    latest: Tensor

    def hidden(self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        self.latest = tokens[0]
        return super().hidden(tokens, positions, cache)

    def lm_head(self, x: Tensor) -> Tensor:
        logits = super().lm_head(x)
        rows = logits.view(-1, logits.size(-1))
        rows[torch.arange(len(rows)), self.next_of[self.latest[-len(rows) :]]] = 1e4
        return logits


class Rigged(ModelDraft):
    """A draft that computes everything, and whose guesses are right with a given probability."""

    def __init__(self, model: LoweredDecoder, next_of: Tensor, acceptance: float) -> None:
        super().__init__(model)
        self.next_of, self.acceptance, self.rng = next_of, acceptance, random.Random(0)

    def guess(self, rows: Sequence[Row], n: Sequence[int], sampling: Sampling, n_ids: int | None) -> Draft:
        super().guess(rows, n, sampling, n_ids)
        (row,) = rows
        ids, token = [], row.ids[-1]
        for _ in range(n[0]):
            token = int(self.next_of[token]) if self.rng.random() < self.acceptance else 0
            ids.append(token)
        self.ahead = [(len(row.ids), ids)]
        return Draft([ids])


def decoders(draft: LoweredDecoder, next_of: Tensor, most: int) -> dict[str, Callable[[], Speculator | None]]:
    """How each row writes, made anew for each round."""
    fixed, free = Speculation(lookahead=most, adapt=False), Speculation(lookahead=most)
    return {
        "plain": lambda: None,
        "acceptance 0.8": lambda: Speculator(Rigged(draft, next_of, 0.8), fixed),
        "acceptance 0.9": lambda: Speculator(Rigged(draft, next_of, 0.9), fixed),
        "acceptance 0.9, adapted": lambda: Speculator(Rigged(draft, next_of, 0.9), free),
        "lookup, copying": lambda: Speculator(PromptLookup(), fixed),
        "never right, adapted": lambda: Speculator(Rigged(draft, next_of, 0.0), free),
    }


def main(words: dict[str, str]) -> None:
    torch.set_num_threads(int(words.get("threads", "2")))
    n_prompt, n_new = int(words.get("prompt", "64")), int(words.get("new", "96"))
    most = int(words.get("lookahead", "4"))
    sizes = {
        name: {"n_layers": int(words.get(f"{at}layers", layers)), "d_model": int(words.get(f"{at}width", width))}
        for name, at, layers, width in (("target", "", "12", "768"), ("draft", "draft_", "2", "256"))
    }
    models = {
        name: build("gpt2", max_seq_len=1024, n_heads=size["d_model"] // 64, **size).eval()
        for name, size in sizes.items()
    }
    for name, model in models.items():
        print(f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters")
    circle = torch.randperm(50_000, generator=torch.Generator().manual_seed(0))[:n_prompt] + 1
    next_of = torch.zeros(50_257, dtype=torch.int64)
    next_of[circle] = circle.roll(-1)
    prompt = [*circle.tolist(), int(circle[0])]
    sampling = Sampling(temperature=0, max_new_tokens=n_new)
    for precision in words.get("precisions", "float32,bfloat16").split(","):
        target = Scripted(models["target"], precision)  # type: ignore[arg-type]
        target.next_of = next_of
        draft = LoweredDecoder(models["draft"], precision)  # type: ignore[arg-type]
        rows = decoders(draft, next_of, most)
        complete(target, [prompt], Sampling(temperature=0, max_new_tokens=8), decoder=rows["acceptance 0.9"]())
        seconds: dict[str, list[float]] = defaultdict(list)
        reports: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        expected = [int(circle[(i + 1) % n_prompt]) for i in range(n_new)]
        for _ in range(int(words.get("rounds", "3"))):
            for name, make in rows.items():
                decoder = make()
                start = time.perf_counter()
                (done,) = complete(target, [prompt], sampling, decoder=decoder)
                seconds[name].append(time.perf_counter() - start)
                assert done.ids == expected
                if decoder is not None:
                    reports[name][0] += decoder.lookahead.n_accepted
                    reports[name][1] += decoder.lookahead.n_guessed
        plain = statistics.median(seconds["plain"])
        for name, took in seconds.items():
            median, (right, guessed) = statistics.median(took), reports[name]
            figures = {
                "precision": precision,
                "draft": name,
                "tokens_per_second": round(n_new / median, 1),
                "speed_up": round(plain / median, 2),
                "accepted": round(right / guessed, 2) if guessed else None,
                "guessed": guessed,
            }
            print(json.dumps(figures))


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
