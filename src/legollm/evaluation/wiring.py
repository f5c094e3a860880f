"""How the bricks inside a block are wired, found by following a value through the block's own forward."""

import operator
from typing import NamedTuple

from torch import fx, nn
from torch.fx.proxy import TraceError

from legollm.evaluation.anatomy import INVISIBLE

ADD, INPUT = "+", "input"


class Step(NamedTuple):
    """Something that happens in a block."""

    name: str
    """The child that does it, or + for a sum, or input."""
    inputs: tuple[int, ...]
    """The steps whose results it takes, by number."""
    reads_memory: bool = False
    """Whether it looks at another text, too."""


class Bricks(fx.Tracer):
    """Follows values between the bricks, not into them."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def wiring(block: nn.Module) -> list[Step]:
    """The steps of `block` in order; the first is its input, the last its result.

    A block whose way depends on its numbers cannot be followed: its bricks then stand one after the other.
    """
    try:
        graph = Bricks().trace(block)
    except TraceError:
        names = [name for name, child in block.named_children() if not isinstance(child, INVISIBLE)]
        return [Step(INPUT, ()), *(Step(name, (i,)) for i, name in enumerate(names))]
    steps = [Step(INPUT, ())]
    made: dict[fx.Node, int] = {}  # which step made a value
    memories = set()
    for node in graph.nodes:
        sources = [made[value] for value in values_of(node) if value in made]
        if node.op == "placeholder":
            if not made:
                made[node] = 0
            elif node.name == "memory":
                memories.add(node)
        elif node.op == "call_module" and not isinstance(block.get_submodule(str(node.target)), INVISIBLE):
            steps.append(Step(str(node.target), tuple(sources), bool(memories & set(values_of(node)))))
            made[node] = len(steps) - 1
        elif node.target is operator.add and len(sources) == 2:
            steps.append(Step(ADD, tuple(sources)))
            made[node] = len(steps) - 1
        elif sources:
            made[node] = sources[-1]
    return steps


def values_of(node: fx.Node) -> list[fx.Node]:
    """The results that a step takes."""
    return list(node.all_input_nodes)


def levels(steps: list[Step]) -> list[int]:
    """How far each step is from the input, at most; steps of one level can happen side by side."""
    found: list[int] = []
    for step in steps:
        found.append(1 + max((found[i] for i in step.inputs), default=-1))
    return found
