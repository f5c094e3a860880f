"""Whatever a configuration holds, YAML gives it back exactly; whatever is read, it is a configuration or one line."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from legollm import config
from legollm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    """One level down."""

    number: float = 0.0
    """Any but NaN."""
    numbers: tuple[int, ...] = ()
    """Of any size."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """One of each kind."""

    text: str = ""
    """Any."""
    maybe: str | None = None
    """Any or none."""
    texts: tuple[str, ...] = ()
    """Any."""
    switch: bool = False
    """On or off."""
    inner: Inner = Inner()


texts = st.text(max_size=40) | st.sampled_from(
    ["null", "~", "no", "1e-3", "[", "a: b", "a #b", "'", "- ", "!x", "&a *a"]
)
outers = st.builds(
    Outer,
    text=texts,
    maybe=st.none() | texts,
    texts=st.lists(texts, max_size=3).map(tuple),
    switch=st.booleans(),
    inner=st.builds(
        Inner, number=st.floats(allow_nan=False), numbers=st.lists(st.integers(-(2**70), 2**70), max_size=3).map(tuple)
    ),
)

settled = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal_of(path: Path | None, words: list[str]) -> str | None:
    """Why a configuration is refused; None if it is not."""
    try:
        _, pairs = config.normalise_words(words, positional=("text", "maybe"), is_switch={"switch": True})
        config.resolve(Outer, config.read(path, pairs))
    except ConfigError as error:
        return str(error)
    return None


@given(outer=outers)
@example(outer=Outer(text="\xa0"))  # white space that is no white space to YAML
@settled
def test_yaml_and_describe_read_back_exactly(outer: Outer, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for text in (config.to_yaml(outer), config.describe(config.Resolved(outer, {"text": "command line"}))):
        path.write_text(text, encoding="utf-8")
        again = config.resolve(Outer, config.read(path, [])).value
        assert again == outer
        assert math.copysign(1, again.inner.number) == math.copysign(1, outer.inner.number)


@given(data=st.binary(max_size=60) | st.text("ab:-[]{}&*!|>'\"#\n ,?%@=", max_size=60).map(str.encode))
@settled
def test_any_bytes_are_a_configuration_or_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(data)
    message = refusal_of(path, [])
    assert message is None or (message.startswith(str(path)) and len(message.splitlines()) == 1)


@given(words=st.lists(st.text("ab.=-[]{}, \n1e", min_size=1, max_size=12), max_size=5))
@example(words=["--\n", "1"])
@settled
def test_any_words_are_settings_or_refused(words: list[str]) -> None:
    message = refusal_of(None, words)
    assert message is None or len(message.splitlines()) == 1


@pytest.mark.parametrize("key", ["text", "maybe"])
@given(text=texts)
@settled
def test_a_text_on_the_command_line_is_taken_as_it_is(key: str, text: str) -> None:
    found = getattr(config.resolve(Outer, config.read(None, [f"{key}={text}"])).value, key)
    assert found == (None if key == "maybe" and text.lower() in ("null", "none", "~") else text)
