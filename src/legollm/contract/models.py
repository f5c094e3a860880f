# mypy: disable-error-code="no-any-return, no-untyped-call"
"""What a model promises to those who call it. Each check takes the model as it is and works on a copy of it."""

import copy
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.masks import Documents
from legollm.components.moe import MoE
from legollm.contract.learning import LEARNING_CHECKS
from legollm.contract.list_cache import ListCache, ListLayerCache
from legollm.contract.samples import loud, some_tokens, vocab_size_of
from legollm.contract.verdict import Check, Outcome, Verdict, difference, relative, verdicts, within
from legollm.interfaces import Cache, Mask

EXACT = 1e-9
"""Allowed in float64, where sums in another order differ by 1e-13 and a mistake by far more."""
BANDS = {torch.float32: 3e-6, torch.bfloat16: 0.03}
"""Relative error of the logits that a dtype may cost; bfloat16 has 8 bits, and a few layers of them."""
ROUTED = 5
"""Where experts are chosen, near ties may be decided otherwise in bfloat16: it may cost this many times as much."""
MakeCache = Callable[[Any, int, int], Cache]
"""(model, rows, columns) -> an empty cache, such as FullCache.for_model."""


def check_model(model: nn.Module) -> list[Verdict]:
    """Every check of a freshly built model, small enough to be trained for a few steps; the model is left as it is.

    An encoder with a decoder is checked as the language model it is once a source is given. What has no next token (a
    classifier), no gradients (counts) or takes no mask is spared the checks that ask for it; and what cannot be one
    graph, because its sizes depend on what is read, is spared the compiler.
    """
    in_pieces = hasattr(model, "given") or is_routed(model)
    model = as_language_model(model)
    taken = inspect.signature(model.forward).parameters
    if "cache" not in taken:
        checks = READER_CHECKS
    elif not any(parameter.requires_grad for parameter in model.parameters()):
        checks = READER_CHECKS[:1] + CALLER_CHECKS
    else:
        checks = (tokens_become_logits, *CALLER_CHECKS, *READER_CHECKS, compiles_whole, *LEARNING_CHECKS)
    if in_pieces:
        checks = tuple(check for check in checks if check is not compiles_whole)
    if "mask" in taken:
        checks = (*checks, packed_documents_are_apart)
    with torch.random.fork_rng(devices=[]):
        return verdicts(checks, model)


class GivenSource(nn.Module):
    """An encoder with a decoder and a source to read: a language model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.source = torch.tensor([[3, 1, 4, 1, 5]])

    @property
    def blocks(self) -> Any:
        return self.model.blocks

    @property
    def kv_shapes(self) -> list[tuple[int, int]]:
        return kv_shapes_of(self.model.given(self.source))

    def forward(self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None,
                at: Tensor | None = None, mask: Mask | None = None) -> Tensor:  # fmt: skip
        """tokens: (B, T) -> (B, T, V), every row after the same source."""
        decoder = self.model.given(self.source.expand(len(tokens), -1))
        return decoder(tokens, positions, cache, at, mask)


def as_language_model(model: nn.Module) -> nn.Module:
    """The model, given a source if it wants one."""
    return GivenSource(model) if hasattr(model, "given") else model


def tokens_become_logits(model: nn.Module) -> Outcome:
    """(B, T) -> (B, T, V) in the dtype of the weights, for any B and T, and the same where only some are wanted."""
    model = copy.deepcopy(model).eval()
    tokens = some_tokens(model, 3)
    logits = model(tokens)
    V = vocab_size_of(model)
    for part in (tokens, tokens[:1, :1], tokens[:2, :5]):
        if (shape := tuple(model(part).shape)) != (*part.shape, V):
            return Outcome(False, f"tokens {tuple(part.shape)} became logits {shape}, expected {(*part.shape, V)}")
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        if (found := copy.deepcopy(model).to(dtype)(tokens).dtype) != dtype:
            return Outcome(False, f"weights of {dtype}, logits of {found}")
    wanted = tokens % 2 == 0
    if not torch.allclose(model(tokens, at=wanted), logits[wanted], rtol=0, atol=1e-5):
        return Outcome(False, "at= gives other logits than the same places of all of them")
    return Outcome(True, f"(B, T) to (B, T, {V}); float32, float64, bfloat16")


def no_token_is_seen_before_its_time(model: nn.Module) -> Outcome:
    """Changing a token changes no logits before its place, and those at its place."""
    model = loud(model)
    tokens = some_tokens(model, 1)
    T = tokens.size(1)
    changed = tokens.repeat(T, 1)
    changed.diagonal().add_(1).remainder_(vocab_size_of(model))  # row t differs at place t
    moved = (model(changed) - model(tokens)).abs().amax(-1)  # (T changed, T heard)
    if not (moved.diagonal() > EXACT).all():
        return Outcome(False, "changing a token leaves the logits at its own place as they were")
    return within(moved.tril(-1).max().item(), EXACT, "a later token moves logits by")


def cached_equals_uncached(model: nn.Module, make_cache: MakeCache | None = None) -> Outcome:
    """Reading in pieces through a cache gives the logits of reading at once, also after truncate and reset."""
    model = loud(model)
    tokens = some_tokens(model, 2)
    T, exact = tokens.size(1), model(tokens)
    cache = (make_cache or list_cache)(model, 2, T)
    worst = 0.0
    for pieces in ways_to_cut(T):
        parts = [model(part, cache=cache) for part in tokens.split(pieces, 1)]
        worst = max(worst, difference(torch.cat(parts, 1), exact))
        if cache.length != T:
            return Outcome(False, f"the cache counts {cache.length} tokens of {T}")
        cache.truncate(T // 2)
        worst = max(worst, difference(model(tokens[:, T // 2 :], cache=cache), exact[:, T // 2 :]))
        cache.reset()
    model(tokens, cache=cache)
    kept = [layer.shape for layer in cache.layers if isinstance(layer, ListLayerCache)]
    if kept and kept != list(kv_shapes_of(model)):
        return Outcome(False, f"caches were given {kept} heads and widths, kv_shapes says {kv_shapes_of(model)}")
    return within(worst, EXACT)


def rows_are_strangers(model: nn.Module) -> Outcome:
    """A row's logits do not depend on the rows beside it, nor on its place among them."""
    model = loud(model)
    tokens = some_tokens(model, 4)
    together = model(tokens)
    alone = torch.cat([model(row[None]) for row in tokens])
    return within(max(difference(alone, together), difference(model(tokens.flip(0)).flip(0), together)), EXACT)


def padding_is_invisible(model: nn.Module) -> Outcome:
    """Rows of unequal length: each gives what it gives alone, whatever stands under the padding, cached or not."""
    model = loud(model)
    whole = some_tokens(model, 3)
    T, V = whole.size(1), vocab_size_of(model)
    lengths = [max(1, T // 4), T - 1, T // 2 + 1]
    rows = [row[:n] for row, n in zip(whole, lengths, strict=True)]
    positions = torch.stack([F.pad(torch.arange(n), (T - n, 0), value=-1) for n in lengths])
    worst, cuts = 0.0, [T - 2, 1, 1] if T > 2 else [T]
    for junk in (0, V - 1):
        tokens = torch.stack([F.pad(row, (T - len(row), 0), value=junk) for row in rows])
        cache = list_cache(model, 3, T)
        pieces = zip(tokens.split(cuts, 1), positions.split(cuts, 1), strict=True)
        cached = torch.cat([model(*piece, cache=cache) for piece in pieces], 1)
        for logits in (model(tokens, positions), cached):
            if not logits.isfinite().all():
                return Outcome(False, "logits at padding are not finite")
            for row, found in zip(rows, logits, strict=True):
                worst = max(worst, difference(found[-len(row) :], model(row[None])[0]))
    return within(worst, EXACT)


def packed_documents_are_apart(model: nn.Module) -> Outcome:
    """Two texts in one row, under the mask that parts them and each with positions of its own: as if alone."""
    model = loud(model)
    a, b = some_tokens(model, 2)
    a, b = a[: len(a) // 2 + 1], b[: len(b) // 2 - 1]
    tokens = torch.cat([a, b])[None]
    ids = torch.tensor([[0] * len(a) + [1] * len(b)])
    positions = torch.cat([torch.arange(len(a)), torch.arange(len(b))])[None]
    packed = model(tokens, positions, mask=Documents(ids))
    return within(difference(packed, torch.cat([model(a[None]), model(b[None])], 1)), EXACT)


def calls_leave_no_trace(model: nn.Module) -> Outcome:
    """In eval mode a call gives the same bits whatever was called before: no dropout, nothing remembered."""
    model = loud(model, torch.float32)
    tokens = some_tokens(model, 2)
    before = model(tokens)
    model(tokens[:1, :3])
    model(tokens.flip(1), cache=list_cache(model, 2, tokens.size(1)))
    after = model(tokens)
    return Outcome(torch.equal(before, after), "the same bits" if torch.equal(before, after) else "another result")


def bits_cost_little(model: nn.Module) -> Outcome:
    """float32, bfloat16 and autocast stay within BANDS of float64."""
    exact = loud(model)
    tokens = some_tokens(exact, 2)
    reference = exact(tokens)
    full, half = (relative(loud(model, dtype)(tokens), reference) for dtype in BANDS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = relative(loud(model, torch.float32)(tokens), reference)
    band = BANDS[torch.bfloat16] * (ROUTED if is_routed(model) else 1)
    found = f"relative error float32 {full:.1e}, bfloat16 {half:.1e}, autocast {mixed:.1e}"
    passed = full <= BANDS[torch.float32] and max(half, mixed) <= band
    return Outcome(passed, f"{found}; allowed {BANDS[torch.float32]:.0e} and {band:.0e}")


def is_routed(model: nn.Module) -> bool:
    """Whether experts are chosen in it."""
    return any(isinstance(part, MoE) for part in model.modules())


def weights_come_back(model: nn.Module) -> Outcome:
    """A state_dict goes into another model of the shape, strictly, and gives the same bits."""
    model, other = loud(model, torch.float32), copy.deepcopy(model).eval()
    tokens = some_tokens(model, 2)
    if torch.equal(model(tokens), other(tokens)):
        return Outcome(False, "other weights give the same logits")
    other.load_state_dict(model.state_dict(), strict=True)
    same = torch.equal(model(tokens), other(tokens))
    return Outcome(same, f"{len(model.state_dict())} tensors" if same else "the loaded model gives other logits")


def tied_weights_stay_tied(model: nn.Module) -> Outcome:
    """Parameters that are one tensor are one after loading, copying and changing dtype."""
    tied = ties_of(model)
    loaded, cast = copy.deepcopy(model), copy.deepcopy(model)
    loaded.load_state_dict(model.state_dict(), strict=True)
    for what, other in {"loading": loaded, "changing dtype": cast.to(torch.bfloat16).float()}.items():
        if ties_of(other) != tied:
            return Outcome(False, f"{what} separates {' = '.join(tied[0])}")
    return Outcome(True, "; ".join(" = ".join(names) for names in tied) or "none are tied")


def compiles_whole(model: nn.Module) -> Outcome:
    """torch.compile finds one graph, for reading and for learning; its trace computes the same."""
    model = loud(model, torch.float32)
    tokens = some_tokens(model, 2)
    torch.compiler.reset()
    try:
        compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
        error = difference(compiled(tokens), model(tokens))
        compiled.train()
        compiled(tokens).sum().backward()
    finally:
        torch.compiler.reset()
    return within(error, 1e-5, "one graph, off by")


def same_bits(model: nn.Module, other: nn.Module) -> Outcome:
    """`other`, the same model from another source, takes the weights and gives the same bits."""
    model, other = as_language_model(model), as_language_model(other)
    model, other = loud(model, torch.float32), copy.deepcopy(other).eval()
    tokens = some_tokens(model, 2)
    if model.state_dict().keys() != other.state_dict().keys():
        return Outcome(False, "the weights have other names")
    other.load_state_dict(model.state_dict(), strict=True)
    same = torch.equal(model(tokens), other(tokens))
    return Outcome(same, "the same weights, the same bits" if same else "the same weights, other logits")


def ties_of(model: nn.Module) -> list[list[str]]:
    """The names of parameters that are one tensor."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def list_cache(model: Any, n_rows: int, n_columns: int) -> ListCache:
    return ListCache(len(kv_shapes_of(model)))


def kv_shapes_of(model: Any) -> list[tuple[int, int]]:
    return list(model.kv_shapes)


def ways_to_cut(n: int) -> list[list[int]]:
    """At once, one by one, a prompt and single tokens, uneven pieces; n tokens each."""
    ways = [[n], [1] * n, [n - 3, 1, 1, 1], [n // 3, 1, n - n // 3 - 1]]
    return [pieces for pieces, _ in itertools.groupby(way for way in ways if min(way) > 0)]


CALLER_CHECKS: tuple[Check, ...] = (
    no_token_is_seen_before_its_time,
    cached_equals_uncached,
    padding_is_invisible,
    calls_leave_no_trace,
)
READER_CHECKS: tuple[Check, ...] = (
    rows_are_strangers,
    bits_cost_little,
    weights_come_back,
    tied_weights_stay_tied,
)
