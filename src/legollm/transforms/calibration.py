"""What linear maps read while a model reads a text: enough to know the error of an answer without the states.

With X the states that a map has read, one a row, a change D of its weights changes its answers by X Dᵀ, whose squares
sum to trace(D G Dᵀ) with the Gram matrix G = XᵀX. So G is all that is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Inputs:
    """What one map has read, or several that read the same."""

    def __init__(self) -> None:
        self.n_states = 0
        self.gram = torch.zeros(0, 0)
        """(in_features, in_features) float32."""
        self.magnitudes = torch.zeros(0)
        """The mean of |x| in each channel: (in_features,)."""

    def add(self, x: Tensor) -> None:
        """x: (..., in_features)."""
        x = x.detach().flatten(0, -2).float()
        if not self.n_states:
            self.gram, self.magnitudes = x.new_zeros(x.size(1), x.size(1)), x.new_zeros(x.size(1))
        self.gram.addmm_(x.t(), x)
        self.magnitudes = (self.magnitudes * self.n_states + x.abs().sum(0)) / max(1, self.n_states + len(x))
        self.n_states += len(x)

    def error(self, change: Tensor) -> float:
        """The sum of squares by which answers change if the weights do: (out_features, in_features)."""
        if not self.n_states:
            return 0.0
        return float((change.float() @ self.gram).mul_(change).sum())


@torch.no_grad()
def watched(
    model: nn.Module, linears: Mapping[str, nn.Module], texts: Sequence[tuple[Tensor, ...]]
) -> dict[str, Inputs]:
    """What each of some maps reads while the model reads all texts; those that read one tensor share what is kept.

    texts: what the model is called with, each time.
    """
    shared: list[tuple[Tensor, Inputs]] = []
    found: dict[str, Inputs] = {}

    def watch(name: str) -> Callable[[nn.Module, Any], None]:
        def look(module: nn.Module, args: Any) -> None:
            x: Tensor = args[0]
            for seen, inputs in shared:
                if seen is x and found.get(name, inputs) is inputs:
                    found[name] = inputs
                    return
            inputs = found.setdefault(name, Inputs())
            inputs.add(x)
            shared.append((x, inputs))

        return look

    hooks = [linear.register_forward_pre_hook(watch(name)) for name, linear in linears.items()]
    was_training = model.training
    model.eval()
    try:
        for text in texts:
            model(*text)
            shared.clear()
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return {name: found.get(name, Inputs()) for name in linears}
