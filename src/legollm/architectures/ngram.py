"""The n-gram model (Shannon 1948): the next token depends on the last few, and counting tells how."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures.checks import check_positive
from legollm.architectures.weight_map import HuggingFace, Row
from legollm.errors import CheckpointError, ConfigError, TokenizerError
from legollm.interfaces import Cache

MAX_ORDER = 7


@dataclass(frozen=True, kw_only=True)
class NGramConfig:
    """How far an n-gram model looks back, and what it says about words it has not seen there."""

    arch: Literal["ngram"] = "ngram"
    """Which architecture this is."""
    vocab_size: int = 256
    """Token ids."""
    max_seq_len: int = 256
    """Tokens per row of the text it is measured on; the model itself looks back order - 1 of them."""
    order: int = 3
    """n, from 1 to 7: the word itself and the n - 1 before it."""
    smoothing: Literal["kneser_ney", "absolute", "add_k"] = "kneser_ney"
    """kneser_ney: what each count gives up is shared out by in how many contexts a word was seen (the best of the
    three); absolute: by how often it was seen; add_k: every word gets k more than it was counted."""
    discount: float | None = None
    """kneser_ney and absolute: what each count gives up; null estimates it from the counts of one and two."""
    k: float = 1.0
    """add_k: what is added to each count."""
    n_grams: tuple[int, ...] = ()
    """How many different sequences of 1, 2, ... order tokens the text had; counting sets it."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "max_seq_len", "order")
        if self.order > MAX_ORDER:
            raise ConfigError(f"order: from 1 to {MAX_ORDER}, found {self.order}")
        if self.discount is not None and not 0 < self.discount <= 1:
            raise ConfigError(f"discount: above 0 and at most 1, or null, found {self.discount}")
        if self.k <= 0:
            raise ConfigError(f"k: must be above 0, or what was never seen would be impossible; found {self.k}")
        if self.n_grams and len(self.n_grams) != self.order:
            raise ConfigError(f"n_grams: expected {self.order} numbers, one per length, found {len(self.n_grams)}")


PRESETS: Mapping[str, NGramConfig] = {}


class Grams(nn.Module):
    """All sequences of n tokens that were seen, sorted: each is a context, seen as well, and the token after it.

    p(w | h) = kept(h w) + passed_on(h) * p(w | h without its first token). The numbers are counted, not learned by
    gradients. Keys are context * vocab_size + token, a context being its place among the keys of one token less;
    float64 holds such whole numbers exactly up to 2^53, and checkpoint formats hold floats.
    """

    def __init__(self, n_contexts: int, n_grams: int, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.key = nn.Parameter(torch.zeros(n_grams, dtype=torch.float64), requires_grad=False)
        self.kept = nn.Parameter(torch.zeros(n_grams, dtype=torch.float64), requires_grad=False)
        self.passed_on = nn.Parameter(torch.ones(n_contexts, dtype=torch.float64), requires_grad=False)

    def find(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """The places of these n-grams, -1 where one was never seen. contexts, tokens: (...) int64 -> (...)."""
        if not len(self.key):
            return torch.full_like(contexts, -1)
        wanted = (contexts * self.vocab_size + tokens).to(self.key.dtype)
        place = torch.searchsorted(self.key, wanted).clamp(max=len(self.key) - 1)
        return torch.where(self.key[place] == wanted, place, -1)  # after -1 nothing is: that would be below zero

    def share_passed_on(self, contexts: Tensor) -> Tensor:
        """What the shorter context decides, (...) -> (...): everything, where this one was never seen."""
        if not len(self.passed_on):
            return torch.ones_like(contexts, dtype=self.passed_on.dtype)
        return torch.where(contexts >= 0, self.passed_on[contexts.clamp(min=0)], 1.0)

    def add_kept(self, probs: Tensor, contexts: Tensor) -> None:
        """Add kept(h w) for every w that was seen after h, in place. probs: (M, V), contexts: (M,)."""
        start = torch.searchsorted(self.key, (contexts * self.vocab_size).to(self.key.dtype))
        stop = torch.searchsorted(self.key, ((contexts + 1) * self.vocab_size).to(self.key.dtype))  # start, for -1
        counts = stop - start
        rows = torch.repeat_interleave(torch.arange(len(contexts), device=contexts.device), counts)
        before = counts.cumsum(0) - counts
        place = torch.arange(len(rows), device=contexts.device) + (start - before)[rows]
        tokens = (self.key[place] % self.vocab_size).long()
        probs[rows, tokens] += self.kept[place].to(probs.dtype)  # no word twice in a row, so nothing is lost


class NGram(nn.Module):
    """Probabilities out of counts (Kneser & Ney 1995; interpolated, as Chen & Goodman 1999 found best).

    A context that was never seen leaves everything to the next shorter one, the empty one to the uniform
    distribution; add_k has no shorter ones and spreads its k evenly around the longest context that was seen.
    """

    levels: Any  # a list of Grams, those of one token first

    def __init__(self, cfg: NGramConfig) -> None:
        super().__init__()
        self.vocab_size, self.is_mixed, self.max_seq_len = cfg.vocab_size, cfg.smoothing != "add_k", None
        sizes = cfg.n_grams or (0,) * cfg.order
        contexts = (1, *sizes[:-1])
        self.levels = nn.ModuleList(Grams(*pair, cfg.vocab_size) for pair in zip(contexts, sizes, strict=True))

    @property
    def kv_shapes(self) -> list[tuple[int, int]]:
        """A cache keeps, in the place of a key and a value, a token and whether it begins or goes on a text."""
        return [(1, 1)]

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """tokens: (B, T) int64 -> logits (B, T, V), or (N, V) at the places that `at` (B, T) says: log p(next)."""
        contexts = self.hidden(tokens, positions, cache)
        return self.lm_head(contexts if at is None else contexts[at])

    def hidden(self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Which contexts end at each token: (B, T) -> (B, T, order) int64, the empty one first, -1 for one never seen.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        if bool(((tokens < 0) | (tokens >= self.vocab_size)).any()):
            wrong = tokens[(tokens < 0) | (tokens >= self.vocab_size)][0].item()
            raise TokenizerError(
                f"token {wrong} is not among the model's ids 0 to {self.vocab_size - 1}; encode with the tokenizer it "
                "was trained with"
            )
        n_new = tokens.size(1)
        if cache is not None:
            positions, _ = cache.place(n_new, positions)
        elif positions is None:
            positions = torch.arange(n_new, device=tokens.device)
        place = positions.clamp(max=1).expand_as(tokens)  # 1 goes on a text, 0 begins one, -1 is padding
        if cache is not None:
            dtype = next(self.parameters()).dtype
            kept = cache.layers[0].append(tokens[:, None, :, None].to(dtype), place[:, None, :, None].to(dtype))
            cache.advance(n_new)
            tokens, place = (part[:, 0, :, 0].long() for part in kept)
            if bool((place < 0).any()):  # also between old tokens and new ones: text is moved together
                order = (place >= 0).int().argsort(stable=True)
                tokens, place = tokens.gather(1, order), place.gather(1, order)
            tokens, place = (part[:, -(n_new + len(self.levels)) :] for part in (tokens, place))
        contexts = [torch.zeros_like(tokens)]
        before = contexts[0]  # the context of each token: what ends at the token before it
        for level in self.levels[:-1]:
            contexts.append(level.find(before, tokens))
            before = torch.where(place > 0, F.pad(contexts[-1], (1, 0), value=-1)[:, :-1], -1)
        return torch.stack(contexts, -1)[:, -n_new:]

    def lm_head(self, contexts: Tensor) -> Tensor:
        """contexts: (..., order) -> log p of every next token, (..., V) float32."""
        rows = contexts.flatten(0, -2)  # (M, order)
        uniform = torch.full((1, self.vocab_size), 1 / self.vocab_size, device=contexts.device)
        probs = uniform
        for n, level in enumerate(self.levels):
            longest = rows[:, n] if n else rows.new_zeros(1)  # the empty context is that of all rows
            share = level.share_passed_on(longest)[:, None].to(probs.dtype)
            below = probs if self.is_mixed else torch.where(share < 1, uniform, probs)
            probs = share * below
            level.add_kept(probs, longest)
        return probs.expand(len(rows), -1).log().view(*contexts.shape[:-1], -1)

    def log_probs(self, tokens: Tensor) -> Tensor:
        """log p of each token after those before it in its row: (B, T) -> (B, T) float64, without a (B, T, V)."""
        contexts = F.pad(self.hidden(tokens)[:, :-1], (0, 0, 1, 0), value=-1)
        contexts[:, 0, 0] = 0  # before the first token there is only the empty context
        probs = torch.full_like(tokens, 1, dtype=torch.float64) / self.vocab_size
        for level, context in zip(self.levels, contexts.unbind(-1), strict=True):
            place, share = level.find(context, tokens), level.share_passed_on(context)
            below = probs if self.is_mixed else torch.where(share < 1, 1 / self.vocab_size, probs)
            probs = share * below
            probs[place >= 0] += level.kept[place[place >= 0]]
        return probs.log()


def ngram(cfg: NGramConfig, seed: int = 0) -> NGram:
    """A model with room for the counts that cfg.n_grams says; before they are filled in, every token is as likely."""
    return NGram(cfg)


def counted(cfg: NGramConfig, ids: Tensor) -> tuple[NGramConfig, NGram]:
    """Count a text, once: the configuration with the sizes of its tables, and the model.

    ids: (T,) int64.

    Raises:
        ConfigError: fewer tokens than the order.
    """
    if len(ids) < cfg.order:
        raise ConfigError(f"order: {cfg.order} needs a text of as many tokens, found {len(ids)}")
    keys: list[Tensor] = []
    counts: list[Tensor] = []
    starts = torch.zeros(len(ids) + 1, dtype=torch.int64)  # the place of the n-gram that starts at each token; n = 0
    for n in range(1, cfg.order + 1):
        key, longer, count = torch.unique(
            starts[:-1] * cfg.vocab_size + ids[n - 1 :], return_inverse=True, return_counts=True
        )
        if n > 1 and cfg.smoothing == "kneser_ney":  # after how many different tokens was what is one shorter seen?
            tails = torch.empty_like(key).scatter_(0, longer, starts[1:])  # of each n-gram, all but its first token
            counts[-1] = torch.bincount(tails, minlength=len(keys[-1]))
            counts[-1][starts[0]] += 1  # and once after nothing, where the text starts
        keys.append(key)
        counts.append(count)
        starts = longer
    cfg = replace(cfg, n_grams=tuple(map(len, keys)))
    model = NGram(cfg)
    for level, key, count in zip(model.levels, keys, counts, strict=True):
        level.load_state_dict({"key": key, **shares(key // cfg.vocab_size, count, len(level.passed_on), cfg)})
    return cfg, model


def shares(context: Tensor, count: Tensor, n_contexts: int, cfg: NGramConfig) -> dict[str, Tensor]:
    """What each n-gram keeps of its context's probability, and what each context passes on."""
    count = count.double()
    total = torch.bincount(context, weights=count, minlength=n_contexts)
    if cfg.smoothing == "add_k":
        added = cfg.k * cfg.vocab_size
        return {"kept": count / (total + added)[context], "passed_on": added / (total + added)}
    discount = cfg.discount or estimated_discount(count)
    n_followers = torch.bincount(context, minlength=n_contexts).double()
    passed_on = torch.where(total > 0, discount * n_followers / total, 1.0)  # the text may end with a new context
    return {"kept": (count - discount) / total[context], "passed_on": passed_on}


def estimated_discount(count: Tensor) -> float:
    """n1 / (n1 + 2 n2), from how many n-grams were counted once and twice (Ney et al. 1994)."""
    n1, n2 = int((count == 1).sum()), int((count == 2).sum())
    return n1 / (n1 + 2 * n2) if n1 else 0.75  # a usual value: where nothing is rare, it hardly matters


def config_from_hf(config: Mapping[str, Any]) -> NGramConfig:
    """The configuration this package wrote: the model has no class elsewhere."""
    names = set(NGramConfig.__dataclass_fields__) - {"arch"}
    if missing := names - config.keys():
        raise CheckpointError(f"config.json: {', '.join(sorted(missing))} is missing; n-gram models need it")
    return NGramConfig(**{name: config[name] for name in names} | {"n_grams": tuple(config["n_grams"])})


HUGGING_FACE = HuggingFace(
    model_type="legollm_ngram",
    class_name="NGram",
    rows=[
        Row("levels.{}.key", ("levels.{}.key",)),
        Row("levels.{}.kept", ("levels.{}.kept",)),
        Row("levels.{}.passed_on", ("levels.{}.passed_on",)),
    ],
    config_to_hf=lambda cfg: {key: value for key, value in asdict(cfg).items() if key != "arch"},
    config_from_hf=config_from_hf,
)
