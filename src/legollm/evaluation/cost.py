"""What a model costs: parameters, arithmetic and memory, found by running its own code on tensors without memory.

Nothing is estimated from a formula about an architecture: every matrix product that a forward pass asks for is counted
as it happens, and every tensor that the backward pass would need is weighed, in a model that allocates nothing. So a
brick of one's own is counted as exactly as those of the package.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from legollm.components.encoder import Encoder
from legollm.components.encoder_decoder import EncoderDecoder
from legollm.components.moe import MoE
from legollm.components.positions import LearnedPositionEmbedding, TokenEmbedding
from legollm.device import autocast
from legollm.transforms.recompute import Forgetful, Sparing


@dataclass(frozen=True)
class Cost:
    """The costs of a model that reads one row of seq_len tokens."""

    seq_len: int
    n_parameters: int
    """All weights; a tied head counts once."""
    n_active: int
    """Weights that one token meets: of a mixture, the experts it is sent to."""
    n_looked_up: int
    """Weights of tables of which a token takes a row, and that nothing is multiplied with."""
    weight_flops: int
    """Of products of the row with weights, forward: a multiplication and an addition count 2."""
    attention_flops: int
    """Of products within the row, forward: queries with keys and what they weigh with values, hidden ones included."""
    kv_shapes: tuple[tuple[int, int], ...]
    """(K, Dh) of every layer that keeps keys and values while it generates."""
    kept_bytes: int
    """What the backward pass over a micro-batch needs of the forward pass, weights left out."""
    n_trained: int
    """Weights that have a gradient."""
    frozen_flops: int = 0
    """Of products with weights that have none, forward."""

    @property
    def forward_flops(self) -> int:
        """Of all matrix products over the row."""
        return self.weight_flops + self.attention_flops

    @property
    def training_flops(self) -> int:
        """Forward and backward: each product has two gradients, of one operand and of the other if it is trained."""
        return 3 * self.forward_flops - self.frozen_flops

    @property
    def rule_flops(self) -> int:
        """What the rule 6 N per token says of training (Kaplan et al. 2020, arXiv:2001.08361): attention left out."""
        return 6 * (self.n_active - self.n_looked_up) * self.seq_len

    def kv_values(self, n_tokens: int) -> int:
        """Numbers in the caches of one row of that many tokens."""
        return n_tokens * sum(2 * n_kv_heads * d_head for n_kv_heads, d_head in self.kv_shapes)


def cost_of(build: Callable[[], nn.Module], seq_len: int, *, batch_size: int = 1, precision: str = "float32") -> Cost:
    """The costs of what `build` makes, which may be of any size: nothing is allocated.

    batch_size, precision: rows at once and how precise products are in training; they decide `kept_bytes`.
    """
    with FakeTensorMode(), torch.random.fork_rng(devices=[]):
        model = build()
        texts = [torch.zeros(1, seq_len, dtype=torch.long)] * (2 if isinstance(model, EncoderDecoder) else 1)
        mixtures = [EvenMoE(module) for module in model.modules() if isinstance(module, MoE)]
        products = Products(model)
        with torch.no_grad(), products:
            model.eval()(*texts)
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        return Cost(
            seq_len=seq_len,
            n_parameters=n_parameters,
            n_active=n_parameters - sum(mixture.n_idle for mixture in mixtures),
            n_looked_up=sum(table.numel() for table in tables_of(model)),
            weight_flops=products.with_weights,
            attention_flops=products.without,
            kv_shapes=kv_shapes_of(model),
            kept_bytes=kept_bytes(model.train(), [text.expand(batch_size, -1) for text in texts], precision),
            n_trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            frozen_flops=products.with_frozen,
        )


class EvenMoE:
    """A mixture of equal experts, one of which does the work of all: without numbers nobody knows which is chosen.

    Takes the place of the layer's `forward`; `n_idle` are then the weights of the experts that a token does not meet.
    """

    def __init__(self, moe: MoE) -> None:
        self.moe = moe
        self.n_idle = 0
        moe.forward = self  # type: ignore[method-assign]

    def __call__(self, x: Tensor) -> Tensor:
        """x: (B, T, D) -> (B, T, D)."""
        moe, expert = self.moe, self.moe.experts[0]
        _, routing = moe.router(x)
        weights = routing.weights.flatten(0, -2)  # (N, k)
        n_rows, k = weights.shape
        answers = expert(x.flatten(0, -2).repeat(k, 1)).view(k, n_rows, -1) * weights.t().unsqueeze(-1)
        y: Tensor = answers.sum(0).to(x.dtype).view(x.shape)
        self.n_idle = (len(moe.experts) - k) * sum(parameter.numel() for parameter in expert.parameters())
        return y if moe.shared is None else y + moe.shared(x)


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the floating-point operations of matrix products, those with a weight of the model apart."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = {storage_of(parameter) for parameter in model.parameters()}
        self.frozen = {storage_of(parameter) for parameter in model.parameters() if not parameter.requires_grad}
        self.with_weights = self.with_frozen = self.without = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        aten = torch.ops.aten
        match function.overloadpacket:
            case aten.mm | aten.bmm:
                self.count(args[0], args[1])
            case aten.addmm | aten.baddbmm:
                self.count(args[1], args[2])
            case aten._scaled_dot_product_flash_attention_for_cpu:
                q, k = args[0], args[1]
                self.without += 2 * 2 * q.numel() * k.size(-2)  # q k^T, then weights times v
        return found

    def count(self, left: Tensor, right: Tensor) -> None:
        """(..., n, m) @ (..., m, p) is 2 n m p."""
        flops = 2 * left.numel() * right.size(-1)
        both = {storage_of(left), storage_of(right)}
        if self.weights & both:
            self.with_weights += flops
            self.with_frozen += flops if self.frozen & both else 0
        else:
            self.without += flops


def storage_of(tensor: Tensor) -> int:
    """The memory a tensor looks at, the same for all its views."""
    number: int = tensor.untyped_storage()._cdata
    return number


def tables_of(model: nn.Module) -> list[Tensor]:
    """Embeddings, unless a linear map shares their weights and multiplies with them."""
    kinds = (TokenEmbedding, LearnedPositionEmbedding, nn.Embedding)
    multiplied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    tables = {id(module.weight): module.weight for module in model.modules() if isinstance(module, kinds)}
    return [table for key, table in tables.items() if key not in multiplied]


def kv_shapes_of(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """What a cache holds per token: of a decoder's blocks, not of an encoder's, whose text is read in one pass."""
    encoder = {id(module) for part in model.modules() if isinstance(part, Encoder) for module in part.modules()}
    layers = [module for module in model.modules() if hasattr(module, "kv_shape") and id(module) not in encoder]
    return tuple(cast(tuple[int, int], layer.kv_shape) for layer in layers)


def kept_bytes(model: nn.Module, texts: Sequence[Tensor], precision: str) -> int:
    """Bytes that autograd keeps from a forward pass and its loss until the backward pass; shared memory counts once."""
    weights = {storage_of(parameter) for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if storage_of(tensor) not in weights:
            kept[storage_of(tensor)] = tensor  # held, so that its memory's number is not given to another
        return tensor

    for block in model.modules():
        if isinstance(vars(block).get("forward"), Forgetful):  # all that it keeps is what it reads
            block.register_forward_pre_hook(lambda block, args: (keep(args[0]), None)[1])
        elif isinstance(sparing := vars(block).get("forward"), Sparing):
            sparing.tell = keep
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with autocast(precision, torch.device("cpu")):
            logits = model(*texts).float()
        F.cross_entropy(logits.flatten(0, -2), logits.new_zeros(logits.shape[:-1], dtype=torch.long).flatten())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
