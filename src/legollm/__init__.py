"""legollm: language models out of parts one can read."""

__version__ = "0.1.0"
