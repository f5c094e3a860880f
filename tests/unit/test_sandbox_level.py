"""What a machine without the fence does: it runs nothing, unless it was told to."""

import json
import sys

import pytest

from legollm.cli import main
from legollm.commands import doctor
from legollm.errors import ConfigError, SandboxError
from legollm.verifiers.code import CodeVerifier
from legollm.verifiers.sandbox import NEEDED, RINGS, SandboxConfig, level, missing_rings, run_code

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fence is for Linux")


@linux
@pytest.mark.parametrize("ring", NEEDED)
def test_code_is_not_run_without_the_rings_that_are_needed(ring: str) -> None:
    assert level((ring,)) == "none"
    with pytest.raises(SandboxError, match="allow_unsandboxed_code=true"):
        run_code("print('ran')", ["1"], without=[ring])


@linux
def test_code_is_run_without_a_fence_where_that_is_allowed() -> None:
    cfg = SandboxConfig(allow_unsandboxed_code=True)
    assert run_code("x = 6", ["x * 7"], cfg, RINGS).results == [{"value": "42"}]


@linux
def test_namespaces_are_one_ring_more() -> None:
    if level() == "none":
        with pytest.raises(SandboxError):
            CodeVerifier()("", "f = abs", "assert f(-1) == 1")
    else:
        assert level(("namespaces",)) == "fenced"
    assert missing_rings(RINGS) == dict.fromkeys(RINGS, "left out")


def test_another_system_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    missing_rings.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert level() == "none"
    with pytest.raises(SandboxError, match="this is darwin"):
        run_code("x = 6", ["x"])
    missing_rings.cache_clear()


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"memory_mb": -1}, {"files_mb": 0}])
def test_a_limit_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        SandboxConfig(**wrong)


def test_the_doctor_says_what_there_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["doctor", "sandbox", "runs=2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["level"] == level()
    assert (report["ms"] is None) == (level() == "none")
    monkeypatch.setattr(doctor, "missing_rings", lambda: {"landlock": "Landlock: the kernel has none"})
    monkeypatch.setattr(doctor, "level", lambda: "none")
    assert main(["doctor", "sandbox"]) == 0
    out = capsys.readouterr().out
    assert "level       none: code is not run" in out
    assert "landlock    missing, which is needed: Landlock: the kernel has none" in out
    assert "one run" not in out
    assert main(["doctor", "sandbox", "runs=-1"]) == 2
