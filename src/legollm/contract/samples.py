"""What the checks feed to a model: short texts of its own ids, and weights that let every part of it be heard."""

import copy

import torch
from torch import Tensor, nn

LENGTH = 12


def loud(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A copy whose weights are large enough that each part of it matters to the logits, norms and biases included."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # counts are what they are
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype).eval()


def vocab_size_of(model: nn.Module) -> int:
    """What a single token's logits say."""
    return int(model(torch.zeros(1, 1, dtype=torch.long)).size(-1))


def some_tokens(model: nn.Module, n_rows: int, seed: int = 0) -> Tensor:
    """(n_rows, T) ids of its vocabulary; T is short, and no longer than the model can read."""
    n = min(LENGTH, getattr(model, "max_seq_len", None) or LENGTH)  # the attribute is an option of a language model
    return torch.randint(vocab_size_of(model), (n_rows, n), generator=torch.Generator().manual_seed(seed))
