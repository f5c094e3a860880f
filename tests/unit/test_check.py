"""`legollm check`, on parts in a file of one's own, right and wrong."""

from pathlib import Path

import pytest
import torch
from torch import nn

from legollm.commands.check import card
from legollm.components.attention import Attention
from legollm.components.outside import brick_from, refuse_misfit
from legollm.contract import Verdict
from legollm.contract.studs import make_part, stud_of
from legollm.contract.verdict import Outcome, difference, verdict, within
from legollm.errors import ConfigError
from walker import legollm

MINE = """
import torch
from torch import nn
from legollm.components.norm import RMSNorm

class Wide(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.up_proj, self.down_proj = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

    def forward(self, x):
        return self.down_proj(self.up_proj(x).tanh())

class Smeared(Wide):
    def forward(self, x):
        return super().forward(x.mean(1, keepdim=True)) + x

class Scaled(RMSNorm):
    pass

class Plain(nn.Linear):
    def __init__(self, d_model):
        super().__init__(d_model, d_model)

class Strange(nn.Module):
    def __init__(self, n_wheels):
        super().__init__()

class Deaf(nn.Module):
    def forward(self, x, positions, mask):
        return x

class Forgetful(nn.Module):
    def forward(self, x, positions, mask, cache=None):
        return x

class Odd(nn.Module):
    def forward(self, left, right):
        return left

number = 3

def nothing():
    return None

class Broken(nn.Module):
    def __init__(self):
        raise RuntimeError("boom")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of one's own, in the current folder."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return name


def test_a_part_of_ones_own_gets_a_card(here: str) -> None:
    said = legollm("check", f"{here}:Wide")
    assert said.out.startswith(f"{here}:Wide, checked as ffn\n\n  holds  shape and dtype stay")
    assert said.out.endswith("\nall 20 hold\n")


def test_a_wrong_part_fails_with_what_was_measured(here: str) -> None:
    from legollm.cli import main

    assert main(["check", f"{here}:Smeared", "--json"]) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("{}:Nope", "has no Nope; it has Wide, Smeared, Scaled"),
        ("{}x:Wide", "no module"),
        (":Wide", "module:Name"),
        ("lama3", "neither module:Name"),
        ("{}:number", "expected a class or a function that makes a module, found int"),
        ("{}:nothing", "expected a torch.nn.Module, found NoneType"),
        ("{}:Broken", "cannot be built: RuntimeError: boom"),
        ("{}:Strange", "nobody knows a value for n_wheels"),
        ("{}:Plain", "say kind=ffn or kind=norm"),
        ("{}:Deaf", "cannot be called as forward(x, positions, mask, cache)"),
        ("{}:Forgetful", "has no kv_shape"),
        ("{}:Odd", "forward(left, right) fits nowhere"),
        ("{}:Wide kind=mixer", "forward(x) cannot be called as forward(x, positions, mask, cache)"),
    ],
)
def test_what_cannot_be_checked_is_said_in_one_line(here: str, words: str, complaint: str) -> None:
    said = legollm("check", *words.format(here).split(), status=2)
    assert complaint in said.err


def test_a_module_that_fails_is_said_in_one_line(tmp_path: Path, here: str) -> None:
    (tmp_path / f"bad_{here}.py").write_text("1 / 0")
    said = legollm("check", f"bad_{here}:Wide", status=2)
    assert "fails: ZeroDivisionError: division by zero" in said.err


def test_where_a_part_goes(here: str) -> None:
    for name, stud in {"Wide": "ffn", "Scaled": "norm"}.items():
        target = brick_from(f"{here}:{name}")
        part = make_part(target, name)
        assert stud_of(part, target, name) == stud
        refuse_misfit(part, stud, name)
    attention = make_part(Attention, "Attention")
    assert stud_of(attention, Attention, "Attention") == "mixer"


def test_a_module_that_needs_what_is_not_there(here: str, tmp_path: Path) -> None:
    (tmp_path / f"{here}_needy.py").write_text("import not_a_module_anywhere")
    with pytest.raises(ConfigError, match="imports not_a_module_anywhere, which is not installed"):
        brick_from(f"{here}_needy:X")
    (tmp_path / f"{here}_broken.py").write_text("def f(:")
    with pytest.raises(ConfigError, match=r"_broken\.py:1: "):
        brick_from(f"{here}_broken:X")


def test_a_crash_is_a_failed_check_and_an_interrupt_is_not() -> None:
    def falls_over(subject: object) -> Outcome:
        raise ValueError("first line\nsecond line")

    def is_stopped(subject: object) -> Outcome:
        raise KeyboardInterrupt

    assert verdict(falls_over, None) == Verdict("falls over", False, "ValueError: first line")
    with pytest.raises(KeyboardInterrupt):
        verdict(is_stopped, None)


def test_nan_is_never_close() -> None:
    nan = torch.tensor([float("nan")])
    assert not within(difference(nan, nan), 1.0).passed
    assert difference(torch.zeros(0), torch.zeros(0)) == 0.0


def test_the_card_is_aligned() -> None:
    assert card("x", [Verdict("ab", True, "1"), Verdict("c", False, "2")]).splitlines() == [
        "x",
        "",
        "  holds  ab  1",
        "  FAILS  c   2",
        "",
        "1 of 2 fail",
    ]


def test_a_part_may_be_anything_callable() -> None:
    assert isinstance(make_part(lambda: nn.Identity(), "identity"), nn.Identity)
