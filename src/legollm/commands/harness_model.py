"""A model as lm-evaluation-harness asks it (Gao et al. 2021): log p of continuations and of whole texts, and answers.

`harness_class()` registers it there as `legollm`, so `simple_evaluate(model="legollm", model_args={"pretrained":
FOLDER})` works in a program of one's own once it was called. Its figures are those of `legollm eval`: both ask
evaluation/likelihood.py.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from legollm.checkpoints.loading import Loaded, load
from legollm.commands.beginning import prompts_of
from legollm.device import pick_device
from legollm.errors import ConfigError
from legollm.evaluation.likelihood import fitted, in_turn, log_likelihoods
from legollm.evaluation.windows import windows
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_texts

MAX_NEW_TOKENS = 256
"""Of an answer, where a task does not say."""


@cache
def harness_class() -> Any:
    """The class, made where lm_eval is imported.

    Raises:
        ConfigError: lm_eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
        from lm_eval.api.registry import register_model
    except ImportError as error:
        raise ConfigError(
            "lm_eval: lm-evaluation-harness is not installed; `pip install 'legollm[lm-eval]'` brings it"
        ) from error

    class Harnessed(LM):  # type: ignore[misc]  # where lm_eval is missing it is Any
        """See the top of the module."""

        def __init__(
            self,
            pretrained: str | Loaded,
            batch_size: int | str = 16,
            device: str = "auto",
            max_length: int | None = None,
            max_batch_size: int | None = None,
        ) -> None:
            """pretrained: a folder, or a model that is loaded. max_length: tokens it reads at most; None is its own
            limit. max_batch_size: of no use here, and always given.

            Raises:
                CheckpointError: no model that continues a text, or none with a tokenizer.
                ConfigError: batch_size=auto, or more tokens than the model reads.
            """
            super().__init__()
            if not str(batch_size).isdecimal() or not int(batch_size):
                raise ConfigError(f"batch_size: {batch_size!r} is no number of rows; give one, such as 16")
            self.lm = load(pretrained) if isinstance(pretrained, str) else pretrained
            self.lm.refuse_pairs()
            self.lm.model.to(pick_device(device))  # type: ignore[arg-type]
            self._device = next(self.lm.model.parameters()).device
            self.prompts, self.batch_size = prompts_of(self.lm), int(batch_size)
            self.max_length = max_length or self.lm.config.max_seq_len
            if self.max_length > self.lm.config.max_seq_len:
                raise ConfigError(f"max_length: {max_length} is more than the model's {self.lm.config.max_seq_len}")

        @property
        def tokenizer_name(self) -> str:
            return self.lm.text_side().fingerprint

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            """(context, continuation) -> its log-likelihood, and whether greedy decoding would write it."""
            pairs = [self.prompts.pairs(context, [end])[0] for context, end in (one.args for one in requests)]
            fits = [fitted(pair, self.max_length)[0] for pair in pairs]
            found = log_likelihoods(self.lm.writer, fits, batch_size=self.batch_size)
            for request, one in zip(requests, found, strict=True):
                self.cache_hook.add_partial("loglikelihood", request.args, tuple(one))
            return [(one.log_prob, one.is_greedy) for one in found]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            """Whole texts, (text,) -> their log-likelihood, each in windows that do not overlap but at its end."""
            totals = [0.0] * len(requests)
            length, begin = self.max_length, self.prompts.ids("")[:1]
            texts = [[*begin, *self.lm.text_side().encode(request.args[0])] for request in requests]
            parts = [
                (i, window.of(ids))
                for i, ids in enumerate(texts)
                for window in windows(len(ids), seq_len=length, stride=length)
            ]
            said = in_turn(self.lm.writer, (part for _, part in parts), batch_size=self.batch_size)
            for (i, _), one in zip(parts, said, strict=True):
                totals[i] += one.log_prob
            for request, total in zip(requests, totals, strict=True):
                self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
            return totals

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """(context, settings) -> what is written up to one of the texts in `until`."""
            groups: dict[str, list[int]] = {}
            for i, request in enumerate(requests):
                groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
            found = [""] * len(requests)
            decoding = Decoding(window=self.max_length, batch_size=self.batch_size, on_overflow="crop")
            for key, members in groups.items():
                sampling = sampling_of(json.loads(key))
                writer = self.lm.writer
                if self._device.type == "cpu":
                    writer = self.lm.writer_of(sampling, n_answers=len(members), decoding=decoding)
                prompts = [self.prompts.ids(requests[i].args[0]) for i in members]
                stops = self.lm.stop_ids()
                said = generate_texts(writer, self.lm.text_side(), prompts, sampling, stop_ids=stops, decoding=decoding)
                for i, one in zip(members, said, strict=True):
                    found[i] = one.text
                    self.cache_hook.add_partial("generate_until", requests[i].args, one.text)
            return found

    register_model("legollm")(Harnessed)
    return Harnessed


def sampling_of(said: Mapping[str, Any]) -> Sampling:
    """What a task says about generation, as this package calls it.

    Raises:
        ConfigError: something that it does not do.
    """
    rest = dict(said)
    until = rest.pop("until", ())
    lengths = [rest.pop(name) for name in ("max_gen_toks", "max_new_tokens") if name in rest]
    draws = rest.pop("do_sample", None)
    temperature = rest.pop("temperature", 1.0 if draws else 0.0)
    allowed = {name: rest.pop(name) for name in ("top_p", "top_k", "min_p", "repetition_penalty") if name in rest}
    if rest:
        raise ConfigError(f"generation_kwargs: {sorted(rest)[0]} is nothing that legollm does; take it out of the task")
    return Sampling(
        temperature=0.0 if draws is False else temperature,
        max_new_tokens=lengths[0] if lengths else MAX_NEW_TOKENS,
        stop=tuple([until] if isinstance(until, str) else until),
        **allowed,
    )
