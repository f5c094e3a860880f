"""What goes on in each layer during one step: how large its gradient, its move and its output are."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from legollm.parts import own_part, whole
from legollm.team import ALONE, Team


class Inspection:
    """Looks at a step without touching it: made before the passes, asked after the optimizer's move.

    Of each layer (`embed`, `blocks.0`, ..., `norm`, `lm_head`):

    grad_norm: of the gradient of all its parameters together, before clipping.
    update_ratio: the norm of what the step changed in its parameters, divided by their norm before it; about 1e-3 is
        usual with AdamW at its peak, 0 learns nothing and 0.1 forgets everything.
    output_rms: the root of the mean square of what it put out, over all positions of all rows, padding included. Left
        out where the layer is not called as a whole.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            self.parameters.setdefault(layer_of(name), []).append(parameter)
        self.model = model
        self.squares = dict.fromkeys(self.parameters, 0.0)
        self.numbers = dict.fromkeys(self.parameters, 0)
        self.grad_norms: dict[str, float] = {}
        self.before: dict[str, list[Tensor]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the passes of a step; their outputs are measured as they come."""
        hooks = [
            self.model.get_submodule(name).register_forward_hook(self.measures(name))
            for name in self.parameters
            if is_module(self.model, name)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def measures(self, name: str) -> Any:
        def measure(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                self.squares[name] += float(output.detach().square().sum(dtype=torch.float64))
                self.numbers[name] += output.numel()

        return measure

    @torch.no_grad()
    def before_move(self) -> None:
        """Remember gradients and weights as they are now."""
        for name, parameters in self.parameters.items():
            grads = [p.grad for p in parameters if p.grad is not None]
            self.grad_norms[name] = math.hypot(*(float(whole(grad.norm())) for grad in grads))
            self.before[name] = [own_part(p).clone() for p in parameters]

    @torch.no_grad()
    def figures(self, team: Team = ALONE) -> dict[str, dict[str, float]]:
        """Layer -> figure -> its value, after the optimizer's move."""
        return {name: self.figures_of(name, team) for name in self.parameters}

    def figures_of(self, name: str, team: Team) -> dict[str, float]:
        moved, size = 0.0, 0.0
        for parameter, before in zip(self.parameters[name], self.before[name], strict=True):
            sums = [square_sum(own_part(parameter) - before), square_sum(before)]
            if own_part(parameter) is not parameter:  # the other rows lie with others
                sums = team.sums(*sums)
            moved, size = moved + sums[0], size + sums[1]
        squares, n = team.sums(self.squares[name], self.numbers[name])
        figures = {"grad_norm": self.grad_norms[name], "update_ratio": math.sqrt(moved / size) if size else 0.0}
        return figures | ({"output_rms": math.sqrt(squares / n)} if n else {})


def square_sum(tensor: Tensor) -> float:
    return float(tensor.square().sum(dtype=torch.float64))


def layer_of(name: str) -> str:
    """The layer of a parameter: up to the first number, or the first word: `encoder.blocks.3`, `embed`."""
    words = name.split(".")
    numbered = next((i for i, word in enumerate(words) if word.isdigit()), 0)
    return ".".join(words[: numbered + 1])


def is_module(model: nn.Module, name: str) -> bool:
    """Not so where a parameter lies in the model itself."""
    return name in dict(model.named_modules())
