"""A model is converted in less memory than it takes: piece by piece, the proof included."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_convert.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("words", [["format=hf", "dtype=float32"], ["format=gguf", "dtype=q8_0"]])
def test_the_peak_is_bounded_by_the_largest_tensor(words: list[str], tmp_path: Path) -> None:
    """Half a billion parameters, 1 GB in bfloat16, where a third of it would break the bound."""
    bench = runpy.run_path(str(BENCHMARK))
    sizes = {"n_layers": 24, "n_heads": 8, "n_kv_heads": 8, "d_head": 128, "d_model": 1024, "d_ff": 4096}
    n_parameters, largest = bench["sparse_folder"](tmp_path / "source", "qwen3", vocab_size=32_000, **sizes)
    assert 2 * n_parameters > 800_000_000
    peak = bench["peak_of"]("export", str(tmp_path / "source"), str(tmp_path / "target"), *words)
    assert peak < 1.3 * largest + 300_000_000
