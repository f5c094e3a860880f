"""The page on Python is what the code says of itself."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api", ROOT / "tools" / "api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool: ModuleType) -> None:
    is_same = tool.PAGE.read_text(encoding="utf-8") == tool.page()
    assert is_same, "what programs use has changed: run `python tools/api.py`"


def test_an_entry_has_the_call_the_documentation_and_the_methods(tool: ModuleType) -> None:
    class Thing:
        """A thing.

        Second paragraph, with <marks>.
        """

        def __init__(self, size: int, names: tuple[str, ...] = ("a long name",) * 9) -> None: ...

        def turn(self, *, by: float = 1.0) -> None:
            """Turn it.

            More.
            """

        @property
        def width(self) -> int:
            """How wide."""
            return 0

        @classmethod
        def load(cls, path: str) -> None:
            """From a file."""

        def _hidden(self) -> None:
            """Not shown."""

        def silent(self) -> None: ...

    assert tool.call("Thing", Thing) == "Thing(size, names=...)"
    assert tool.told(Thing) == "A thing.\n\nSecond paragraph, with &lt;marks>."
    assert list(tool.methods(Thing)) == [
        "- `.turn(*, by=1.0)`: Turn it.\n",
        "- `.width`: How wide.\n",
        "- `.load(path)`: From a file.\n",
    ]
