"""Every error a user can cause, as one tree. Each says what was found, what is possible and what to do.

LegoLLMError                     exit status 1
├── ConfigError      ValueError  2  a setting that does not exist or cannot be
├── DataError        ValueError  2  a corpus that cannot be read; names file and line
├── TokenizerError   ValueError  2  a tokenizer file or a request it cannot serve
├── ContextError     ValueError  2  more tokens than the model or its cache can hold
├── VerifierError    ValueError  2  a question or a rule that a verifier cannot judge by
├── SandboxError     OSError     1  a machine whose kernel cannot fence in code that a model wrote
├── DownloadError    OSError     1  a data set that could not be fetched or is not what was promised
├── CheckpointError  OSError     1  a folder that is no checkpoint, or does not fit the model
│   └── IntegrityError           5  a file whose content is not what its manifest says
├── PeerError        ConnectionError  1  another process of the same run is gone
├── LoweringError    ValueError  2  a part of a model that only torch can run
├── TooLargeError    MemoryError 1  a model or a single row that does not fit into memory
├── DivergedError    ArithmeticError  4  training met numbers that are not finite and stopped
└── Interrupted                  3  a signal ended the run after its state was saved

Each class also is the built-in exception it resembles, so callers may catch either.
"""

from collections.abc import Mapping
from typing import Any


class LegoLLMError(Exception):
    """Base of all errors a user can cause; the command line prints it as one line."""

    exit_status = 1


class ConfigError(LegoLLMError, ValueError):
    """The configuration asks for something that does not exist or cannot be."""

    exit_status = 2


class DataError(LegoLLMError, ValueError):
    """A corpus or a prepared data folder that cannot be used as it is."""

    exit_status = 2


class TokenizerError(LegoLLMError, ValueError):
    """A tokenizer file that cannot be read, or text and ids it cannot serve."""

    exit_status = 2


class ContextError(LegoLLMError, ValueError):
    """More tokens than the model was built for, or than its cache holds."""

    exit_status = 2


class VerifierError(LegoLLMError, ValueError):
    """A question, a reference or a rule that a verifier cannot judge by, whatever the answer."""

    exit_status = 2


class SandboxError(LegoLLMError, OSError):
    """A machine that cannot fence in code written by a model, which is then not run."""


class DownloadError(LegoLLMError, OSError):
    """A file that could not be fetched, or that is not the one that was promised."""


class CheckpointError(LegoLLMError, OSError):
    """A folder that is no checkpoint, or whose tensors do not fit the model."""


class IntegrityError(CheckpointError):
    """A file whose content is not what the manifest beside it says."""

    exit_status = 5


class PeerError(LegoLLMError, ConnectionError):
    """Another process of the same run is gone, and this one cannot go on without it."""


class LoweringError(LegoLLMError, ValueError):
    """A model, or something asked of it, for which there are no kernels; torch can do it."""

    exit_status = 2


class TooLargeError(LegoLLMError, MemoryError):
    """A model, or a single row of a batch, that does not fit into the memory there is."""


class DivergedError(LegoLLMError, ArithmeticError):
    """Training met numbers that are not finite, several steps in a row; `details` says where."""

    exit_status = 4

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})


class Interrupted(LegoLLMError):
    """A signal ended the run; its state was saved first and `resume=auto` continues it."""

    exit_status = 3
