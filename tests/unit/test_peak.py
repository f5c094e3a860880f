"""The peak of a step found without memory is that of a real one, as PyTorch's profiler sees its blocks."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from legollm.architectures import ARCHITECTURES
from legollm.evaluation.peak import PROCESS, Peak, backward, peak_of
from legollm.training.optim import OptimConfig, build_optimizer
from tiny_models import tiny_config

B, T = 8, 12


def real_peaks(model: nn.Module, optimizer: OptimConfig, n_micro_batches: int) -> tuple[int, int]:
    """Bytes taken and not given back, at most, while gradients are computed and while weights move."""
    opt, tokens = build_optimizer(model, optimizer), torch.zeros(B, T, dtype=torch.long)
    backward(model, tokens, "float32")
    opt.step()
    opt.zero_grad()
    held = sum(p.nbytes for p in model.parameters())
    held += sum(v.nbytes for s in opt.state.values() for v in s.values() if isinstance(v, torch.Tensor))
    peaks = []
    for work in (lambda: [backward(model, tokens, "float32") for _ in range(n_micro_batches)], opt.step):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
            work()
        assert prof.profiler is not None
        assert prof.profiler.kineto_results is not None
        moves = [event for event in prof.profiler.kineto_results.events() if event.name() == "[memory]"]
        now, most = held, held
        for event in sorted(moves, key=lambda event: event.start_ns()):
            now += event.nbytes()
            most = max(most, now)
        peaks.append(most)
        held = now
    return peaks[0], peaks[1]


@pytest.mark.parametrize(
    ("arch", "optimizer", "n_micro_batches"),
    [("gpt2", "adamw", 1), ("qwen3", "lion", 2), ("llama3", "muon", 1), ("llama3", "sgd", 2)],
)
def test_a_real_step_takes_as_much(arch: str, optimizer: str, n_micro_batches: int) -> None:
    def build() -> nn.Module:
        return ARCHITECTURES[arch].build(tiny_config(arch))

    optim = OptimConfig(name=optimizer)  # type: ignore[arg-type]
    found = peak_of(build, lambda m: build_optimizer(m, optim), T, batch_size=B, grad_accum=n_micro_batches)
    assert (found.backward, found.update) == pytest.approx(real_peaks(build(), optim, n_micro_batches), rel=0.03)


def test_rows_that_fit_are_those_whose_step_does() -> None:
    def build() -> nn.Module:
        return ARCHITECTURES["gpt2"].build(tiny_config("gpt2"))

    def peak(n_rows: int) -> Peak:
        return peak_of(build, lambda m: build_optimizer(m, OptimConfig()), T, batch_size=n_rows)

    some = peak(8)
    assert some.rows_within(peak(40).backward + 1) == 40
    assert some.rows_within(peak(40).backward - 1) == 39
    assert some.rows_within(some.update - 1) == 0


def test_the_process_is_larger_than_its_tensors() -> None:
    gb = 10**9
    peak = Peak(gb, gb, backward=4 * gb, update=3 * gb, per_row=1.0, batch_size=1, spare=0.25)
    process = peak.process_bytes("bfloat16")
    assert process == PROCESS["bfloat16"] + 4 * gb + gb // 2  # a quarter of what comes and goes
    assert peak.tensor_bytes(process, "bfloat16") == pytest.approx(4 * gb)
