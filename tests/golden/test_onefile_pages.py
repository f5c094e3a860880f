"""docs/onefile/ is what `legollm eject` writes now, and what it writes computes what the package computes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from legollm.architectures import ARCHITECTURES
from legollm.eject import eject, page, write_pages
from tiny_models import TINY, some_tokens, tiny_config, tiny_model

PAGES = Path(__file__).parent.parent.parent / "docs" / "onefile"

CHILD = """
import importlib.util, json, sys
from pathlib import Path
import torch
from safetensors.torch import load_file

torch.set_num_threads(1)
for name, sizes in json.loads(sys.argv[1]).items():
    spec = importlib.util.spec_from_file_location(name, f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if sizes.get("rope_scaling"):
        sizes["rope_scaling"] = module.Llama3Scaling(**sizes["rope_scaling"])
    build = getattr(module, name)
    config = next(value for key, value in vars(module).items() if key.lower() == name.replace("_", "") + "config")
    model = build(config(**sizes), seed=3).eval()
    saved = load_file(f"{name}.safetensors")
    tokens, logits, fresh = (saved.pop(key) for key in ("tokens", "logits", "fresh"))
    assert torch.equal(model(tokens), fresh), name
    assert model.state_dict().keys() == saved.keys(), name
    model.load_state_dict(saved, strict=True)
    assert torch.equal(model(tokens), logits), name
assert "legollm" not in sys.modules and importlib.util.find_spec("legollm") is None
print("same")
"""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_page_is_a_fresh_ejection(name: str) -> None:
    found = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert found == page(name), f"docs/onefile/{name}.md is out of date; `legollm eject` writes it"


def test_pages_are_written_for_all(tmp_path: Path) -> None:
    write_pages(tmp_path / "new")
    assert {path.stem for path in (tmp_path / "new").iterdir()} == set(ARCHITECTURES)
    assert {path.stem for path in PAGES.iterdir()} == set(ARCHITECTURES)


def test_ejected_files_compute_the_same_bits_where_the_package_is_not(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = {}
    for name in TINY:
        (tmp_path / f"{name}.py").write_text(eject(name), encoding="utf-8")
        model, tokens = tiny_model(name), some_tokens(2, 13)
        with torch.no_grad():
            fresh = ARCHITECTURES[name].build(tiny_config(name), seed=3).eval()(tokens)
            tensors = {key: value.clone() for key, value in model.state_dict().items()}
            save_file(
                tensors | {"tokens": tokens, "logits": model(tokens), "fresh": fresh}, tmp_path / f"{name}.safetensors"
            )
        sizes[name] = dataclasses.asdict(tiny_config(name))
    torch.set_num_threads(threads)
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SITE + CHILD, json.dumps(sizes)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout.strip() == "same", result.stderr


# Where torch and safetensors are, but not the package, however it was installed (a .pth file is read by site only).
SITE = f"import sys\nsys.path[:0] = {[p for p in sys.path if p.endswith('site-packages')]!r}\n"
