"""Memory in blocks of a few tokens, lent to texts as they grow (Kwon et al. 2023, arXiv:2309.06180).

Only numbers of blocks here, no keys: whoever owns the memory copies and reads. A block that is full can be given a
name, which is what its tokens are and which block came before; a text that starts the same way finds it and shares it.
A named block that nobody uses stays findable until its memory is needed, the longest unused one first.
"""

from collections import OrderedDict
from typing import NamedTuple, TypeAlias

from legollm.errors import ContextError

Name: TypeAlias = tuple[int, tuple[int, ...]]
"""The serial number of what came before, 0 for nothing, and the tokens: all that the keys in a block depend on."""


class Named(NamedTuple):
    """A block with a name."""

    block: int
    serial: int
    """Never given twice: a name that refers to it cannot come to mean something else when the block is used anew."""


class BlockPool:
    """Blocks 0 to n_blocks - 1, each free or used by one text or several."""

    def __init__(self, n_blocks: int, block_size: int = 16) -> None:
        """block_size: tokens of each."""
        self.n_blocks, self.block_size = n_blocks, block_size
        self.n_users = [0] * n_blocks
        self.fresh = list(range(n_blocks - 1, -1, -1))  # free, and nothing worth keeping in them
        self.unused: OrderedDict[int, None] = OrderedDict()  # free, and named; the longest unused first
        self.named: dict[Name, Named] = {}
        self.names: dict[int, Name] = {}  # of each block that has one
        self.n_serials = 0
        self.n_asked = self.n_found = self.n_evicted = 0

    @property
    def n_free(self) -> int:
        """Blocks that can be had, named ones included."""
        return len(self.fresh) + len(self.unused)

    def take(self) -> int:
        """A block for new tokens, with one user.

        Raises:
            ContextError: all are in use.
        """
        if not self.n_free:
            raise ContextError(
                f"all {self.n_blocks} blocks of {self.block_size} tokens are in use; make the cache larger, or texts "
                "fewer or shorter"
            )
        if self.fresh:
            block = self.fresh.pop()
        else:
            block, _ = self.unused.popitem(last=False)
            self.unname(block)
            self.n_evicted += 1
        self.n_users[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more text uses it."""
        if self.n_users[block] == 0:
            del self.unused[block]
        self.n_users[block] += 1

    def give_back(self, block: int) -> None:
        """One text less uses it."""
        self.n_users[block] -= 1
        assert self.n_users[block] >= 0, "given back more often than taken"
        if self.n_users[block] == 0 and block in self.names:
            self.unused[block] = None
        elif self.n_users[block] == 0:
            self.fresh.append(block)

    def find(self, name: Name) -> Named | None:
        """The block of this name, with one more user; None if it is not there. Tokens are compared, too."""
        self.n_asked += 1
        found = self.named.get(name)
        if found is not None:
            self.n_found += 1
            self.share(found.block)
        return found

    def name(self, block: int, name: Name) -> int:
        """Let others find a full block; returns the serial number by which the next one names what came before.

        A name that another block has already stays with that one.
        """
        found = self.named.get(name)
        if found is None:
            self.n_serials += 1
            found = self.named[name] = Named(block, self.n_serials)
            self.names[block] = name
        return found.serial

    def unname(self, block: int) -> None:
        """Before its content changes."""
        name = self.names.pop(block, None)
        if name is not None:
            del self.named[name]

    def is_writable(self, block: int) -> bool:
        """Whether a text that uses it may change it: nobody else does, and nobody finds it."""
        return self.n_users[block] == 1 and block not in self.names
