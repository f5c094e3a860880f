"""Every way to compute attention computes the same, with every option, forward and backward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.components import tiled
from legollm.components.attention import Attention, attend, key_positions
from legollm.components.flex import attend_flex
from legollm.components.masks import Causal, Documents, Everything, Near, Prefix, Ragged
from legollm.components.positions import Alibi, NoPositions, T5Bias
from legollm.components.tiled import attend_tiled
from legollm.errors import ConfigError
from legollm.interfaces import Mask

CPU = torch.device("cpu")
RAGGED = torch.tensor([[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]])
MASKS: dict[str, tuple[int, Mask]] = {
    "causal": (5, Causal()),
    "causal chunk": (3, Causal()),
    "causal single": (1, Causal()),
    "window": (5, Near(Causal(), 2, CPU)),
    "ragged": (5, Ragged(RAGGED, RAGGED)),
    "ragged chunk": (2, Ragged(RAGGED[:, -2:], RAGGED)),
    "everything": (4, Everything(CPU)),
    "everything ragged": (5, Everything(CPU, RAGGED)),
    "documents": (5, Documents(torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 1, 1]]))),
    "prefix": (5, Prefix(torch.tensor([2, 4]))),
}
BACKENDS: tuple[Any, ...] = ("naive", "sdpa", attend_tiled)
OPTIONS = ["nothing", "bias", "bias of each row", "sinks", "bias, sinks and scale"]


def inputs(T: int, options: str, *, n_kv_heads: int = 2, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    found: dict[str, Any] = {"q": draw(2, 4, T, 8), "k": draw(2, n_kv_heads, 5, 8), "v": draw(2, n_kv_heads, 5, 8)}
    if "bias" in options:
        found["bias"] = draw(*((2,) if "row" in options else ()), 4, T, 5)
    if "sinks" in options:
        found["sinks"] = draw(4)
    if "scale" in options:
        found["scale"] = 0.7
    return found


def result_and_gradients(given: dict[str, Any], mask: Mask, backend: Any) -> list[Tensor]:
    y = attend(mask=mask, backend=backend, **given)
    tensors = [t for t in given.values() if isinstance(t, Tensor)]
    return [y, *torch.autograd.grad(y.sin().sum(), tensors)]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("backend", ["sdpa", attend_tiled])
def test_backends_agree(backend: Any, name: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE", 2)
    T, mask = MASKS[name]
    for n_kv_heads in (4, 2, 1):
        given = inputs(T, options, n_kv_heads=n_kv_heads)
        expected = result_and_gradients(given, mask, "naive")
        torch.testing.assert_close(result_and_gradients(given, mask, backend), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_what_they_say(options: str) -> None:
    given = inputs(5, options, n_kv_heads=4)
    q, k, v = given["q"], given["k"], given["v"]
    scores = given.get("scale", 8**-0.5) * (q @ k.mT) + given.get("bias", 0.0)
    scores = scores.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
    if "sinks" in given:  # softmax with one more column, of a key that has no value
        scores = torch.cat([scores, given["sinks"].view(1, 4, 1, 1).expand(2, -1, 5, 1)], -1)
        v = torch.cat([v, torch.zeros(2, 4, 1, 8, dtype=v.dtype)], 2)
    expected = scores.softmax(-1) @ v
    for backend in BACKENDS:
        torch.testing.assert_close(attend(mask=Causal(), backend=backend, **given), expected, rtol=0, atol=1e-9)


def test_a_sink_may_take_all_attention() -> None:
    given = inputs(5, "sinks")
    given["sinks"] = torch.tensor([-1e9, 1e9, -1e9, 0.0], dtype=torch.float64)
    for backend in BACKENDS:
        y = attend(mask=Causal(), backend=backend, **given)
        assert y[:, 1].abs().max() == 0
        without = attend(given["q"], given["k"], given["v"], Causal(), backend=backend)
        torch.testing.assert_close(y[:, [0, 2]], without[:, [0, 2]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", [attend_flex, attend_tiled])
def test_what_a_backend_cannot_do_is_refused(backend: Any) -> None:
    given = inputs(5, "nothing")
    with pytest.raises(ConfigError, match=f"dropout: {backend.__name__} has none, found 0.1; use sdpa or naive"):
        attend(mask=Causal(), backend=backend, dropout=0.1, **given)


def test_flex_says_that_it_has_no_gradients_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="flex has no gradients on a CPU; use sdpa, naive or tiled"):
        attend(mask=Causal(), backend=attend_flex, **inputs(5, "nothing"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the compiler
def test_flex_says_when_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled before lies there
    torch.compiler.reset()
    given = inputs(5, "nothing", dtype=torch.float32)
    missing = torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler")})
    with missing, torch.no_grad(), pytest.raises(ConfigError, match=r"flex does not compile here, .*; use sdpa") as it:
        attend(mask=Causal(), backend=attend_flex, **given)
    assert "\n" not in str(it.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "options"), [("causal", "nothing"), ("ragged", "bias, sinks and scale")])
def test_flex_agrees(name: str, options: str) -> None:
    T, mask = MASKS[name]
    given = inputs(T, options, dtype=torch.float32)
    with torch.no_grad():
        got, expected = (attend(mask=mask, backend=backend, **given) for backend in (attend_flex, "naive"))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def attention(**changes: Any) -> Attention:
    options = {"n_heads": 4, "n_kv_heads": 2, "d_head": 4, "rope": NoPositions()} | changes
    return Attention(16, **options).double()


def test_sinks_start_as_one_more_in_the_denominator_and_learn() -> None:
    layer, x = attention(sinks=True), torch.randn(1, 5, 16, dtype=torch.float64)
    assert torch.equal(layer.sinks, torch.zeros(4))
    layer(x, torch.arange(5), Causal()).sum().backward()
    assert layer.sinks.grad.abs().min() > 0
    assert attention().sinks is None


def test_scale_replaces_the_usual_one() -> None:
    plain, scaled = attention(), attention(scale=1.0)
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        scaled.q_proj.weight *= 0.5  # 1 / sqrt(4)
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    y = [layer(x, torch.arange(5), Causal()) for layer in (plain, scaled)]
    torch.testing.assert_close(*y, rtol=0, atol=1e-12)


class ListCache:
    """Keys and values of all that came."""

    def __init__(self) -> None:
        self.k: list[Tensor] = []
        self.v: list[Tensor] = []

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.k.append(k)
        self.v.append(v)
        return torch.cat(self.k, 2), torch.cat(self.v, 2)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bias", [Alibi(4), T5Bias(4, bidirectional=False)], ids=lambda bias: type(bias).__name__)
def test_biased_scores_in_pieces_are_those_of_the_whole(bias: nn.Module, ragged: bool) -> None:
    layer, x = attention(position_bias=bias, window=3), torch.randn(2, 5, 16, dtype=torch.float64)
    positions = RAGGED if ragged else torch.arange(5)

    def run(start: int, stop: int, cache: ListCache | None) -> Tensor:
        here = positions[..., start:stop]
        mask = Ragged(here, positions[:, :stop]) if ragged else Causal()
        return layer(x[:, start:stop], here, mask, cache)

    whole, cache = run(0, 5, None), ListCache()
    parts = [run(*piece, cache) for piece in ((0, 2), (2, 3), (3, 5))]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)
    if ragged:
        alone = layer(x[:1, 2:], torch.arange(3), Causal())
        torch.testing.assert_close(whole[:1, 2:], alone, rtol=0, atol=1e-12)


def test_where_keys_stand() -> None:
    assert key_positions(Ragged(RAGGED[:, -2:], RAGGED), RAGGED[:, -2:], 5) is RAGGED
    assert key_positions(Causal(), torch.arange(3, 5), 5).tolist() == [0, 1, 2, 3, 4]
    assert key_positions(Everything(CPU), RAGGED, 5) is RAGGED
