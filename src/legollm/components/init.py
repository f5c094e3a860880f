"""The weights a model starts from."""

import torch
from torch import nn

RESIDUAL_OUTPUTS = {"o_proj", "down_proj"}


@torch.no_grad()
def init_weights(model: nn.Module, generator: torch.Generator) -> None:
    """GPT-2's start: matrices and embeddings from normal(0, 0.02), biases 0, norms as their bricks made them.

    Each layer adds to the residual stream twice; the projections that do so start smaller by sqrt(2 * n_layers), so
    that its variance does not grow with depth (Radford et al. 2019, section 2.3). Drawn on the CPU: a seed gives the
    same model on every device.
    """
    parameters = dict(model.named_parameters())  # a tied head is the embedding and appears once
    n_layers = sum(name.endswith("o_proj.weight") for name in parameters)
    for name, parameter in parameters.items():
        if parameter.is_meta:
            continue  # a model without memory, built to be counted or to be loaded
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim >= 2:
            std = 0.02 / (2 * n_layers) ** 0.5 if RESIDUAL_OUTPUTS & set(name.split(".")) else 0.02
            parameter.copy_(torch.empty(parameter.shape, device="cpu").normal_(std=std, generator=generator))


@torch.no_grad()
def init_zero_outputs(model: nn.Module, generator: torch.Generator) -> None:
    """A start at which every block adds nothing and every token is as likely as any other.

    What adds to the residual stream, the head and tables of n-grams are zero; matrices that read it are uniform with
    variance 1 / D_in, vectors of tokens and positions normal(0, 1). With an optimizer whose steps have a size of their
    own, such as Muon, the zeros are gone after a step, and rates can be higher than from small random weights.
    """
    for name, parameter in model.named_parameters():
        parts = set(name.split("."))
        if parameter.is_meta or (parameter.ndim < 2 and not name.endswith("bias")):
            continue
        if name.endswith("bias") or parts & (RESIDUAL_OUTPUTS | {"lm_head", "ngrams"}):
            parameter.zero_()
        elif "embed" in parts:
            parameter.copy_(torch.empty(parameter.shape, device="cpu").normal_(generator=generator))
        else:
            bound = (3 / parameter.size(-1)) ** 0.5
            parameter.copy_(torch.empty(parameter.shape, device="cpu").uniform_(-bound, bound, generator=generator))
