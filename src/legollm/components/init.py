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
