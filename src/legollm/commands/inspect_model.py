"""`legollm inspect`: the parts of a model as a table or a picture, or what it does with a text as a page."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import nn

from legollm.architectures import ARCHITECTURES, architecture
from legollm.checkpoints.huggingface import config_from_hf
from legollm.checkpoints.loading import resolve_folder
from legollm.checkpoints.quantized import quantization_of
from legollm.checkpoints.reader import read_json
from legollm.commands import xray
from legollm.commands.diagram import diagram
from legollm.config import Resolved
from legollm.device import without_memory
from legollm.errors import ConfigError
from legollm.evaluation.anatomy import Part, anatomy
from legollm.evaluation.xray import xray as look_into
from legollm.transforms.quantize import QuantizeConfig, prepare


@dataclass(frozen=True, kw_only=True)
class InspectRun:
    """Which model, and how it is shown."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name", "out")

    name: str = "qwen3"
    """A published size such as gpt2-xl, an architecture, the folder of a checkpoint or a run; or all: every picture."""
    diagram: bool = False
    """Draw it: an SVG that needs nothing else."""
    out: Path | None = None
    """The file to write, or the folder of the pictures; null prints one, or writes docs/diagrams/, or with text
    inspect.html."""
    json: bool = False
    """Print JSON."""
    text: str | None = None
    """What the model is to read: a page shows what its heads, blocks and experts do with it."""
    max_tokens: int = 64
    """text: how many of its tokens are shown."""
    layers: tuple[int, ...] | None = None
    """text: the blocks whose attention maps are drawn; null is all."""
    n_sinks: int = 1
    """text: how many first tokens count as places where heads rest."""

    def __post_init__(self) -> None:
        if self.max_tokens < 2 or not 1 <= self.n_sinks < self.max_tokens:
            raise ConfigError(
                f"max_tokens, n_sinks: at least two tokens and fewer sinks than tokens, found {self.max_tokens} and "
                f"{self.n_sinks}"
            )
        if self.text is not None and self.diagram:
            raise ConfigError("text: makes a page, and diagram a picture of the parts; leave out one of them")


def inspect(run: Resolved[InspectRun]) -> None:
    """Show the parts of a model with their shapes and parameters; equal parts in a row are one line. No weight is read.

    legollm inspect llama-3.2-1b --diagram llama.svg

    With a text: what the model does with it, as one page that needs nothing else. Loss of each token,
    attention maps, which heads copy, what each block would say (the logit lens), which experts work on
    what.

    legollm inspect runs/demo page.html text="Mira put the key in the box. Mira put the key"
    """
    cfg = run.value
    if cfg.text is not None:
        look_at_text(cfg, cfg.text)
        return
    if cfg.name == "all":
        folder = cfg.out or Path("docs/diagrams")
        write_diagrams(folder)
        print(f"{folder}: {', '.join(ARCHITECTURES)}")
        return
    arch, model_config, quantization = model_named(cfg.name)
    parts = parts_of(arch, model_config, quantization)
    if cfg.diagram:
        if cfg.out is not None and cfg.out.suffix not in {"", ".svg"}:
            raise ConfigError(f"out: pictures are written as SVG, and {cfg.out} is not named .svg")
        text = diagram(parts, Path(cfg.name).name, size_of(arch, model_config, parts))
    elif cfg.json:
        text = (
            json.dumps({"arch": arch, "config": asdict(model_config), "parts": list(rows_of(parts))}, indent=1) + "\n"
        )
    else:
        text = "".join(f"{line}\n" for line in table(parts))
        if is_uncounted(arch, model_config):
            text += f"\n{UNCOUNTED}: these are empty tables; name the folder of a run to see how large they became\n"
    if cfg.out is None:
        print(text, end="")
    else:
        cfg.out.write_text(text, encoding="utf-8")
        print(f"{cfg.out}: {size_of(arch, model_config, parts)}")


def look_at_text(cfg: InspectRun, text: str) -> None:
    """What a model does with a text: a page, or figures."""
    lm = xray.open_with_weights(cfg.name)
    ids = xray.ids_of(lm, text, cfg.max_tokens, cfg.n_sinks)
    ray = look_into(lm.model, ids, lm.text_side().token_bytes, cfg.n_sinks)
    if not cfg.json:
        xray.write_page(lm, ray, Path(cfg.name).name, cfg.out or Path("inspect.html"), cfg.layers)
        return
    found = json.dumps(xray.figures(lm, ray), indent=1) + "\n"
    if cfg.out is None:
        print(found, end="")
    else:
        cfg.out.write_text(found, encoding="utf-8")
        print(f"{cfg.out}: figures of {len(ids):,} tokens")


UNCOUNTED = "as large as what a text has to count"


def is_uncounted(arch: str, model_config: Any) -> bool:
    """Whether a model consists of counts and nothing is counted yet."""
    return architecture(arch).learns == "counts" and not model_config.n_grams


def size_of(arch: str, model_config: Any, parts: Part) -> str:
    """How large a model is, in words."""
    return UNCOUNTED if is_uncounted(arch, model_config) else f"{parts.n_parameters:,} parameters"


def parts_of(arch: str, model_config: Any, quantization: QuantizeConfig | None = None) -> Part:
    """The parts of a model, which takes no memory."""
    with without_memory():
        model = cast(nn.Module, architecture(arch).build(model_config))
        if quantization:
            prepare(model, quantization)
        return anatomy(model)


def write_diagrams(folder: Path) -> None:
    """Draw every architecture at its first published size, or as its defaults make it: NAME.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for arch, row in ARCHITECTURES.items():
        title, model_config = next(iter(row.presets.items()), (arch, row.config()))
        parts = parts_of(arch, model_config)
        picture = diagram(parts, title, size_of(arch, model_config, parts))
        (folder / f"{arch}.svg").write_text(picture, encoding="utf-8")


def model_named(name: str) -> tuple[str, Any, QuantizeConfig | None]:
    """The architecture and the configuration of a published size, of an architecture's name, or of a folder.

    The third is how the weights of a folder were quantised.

    Raises:
        ConfigError: it is none of them.
        CheckpointError: a folder whose model the bricks do not compute.
    """
    presets = {preset: (arch, cfg) for arch, row in ARCHITECTURES.items() for preset, cfg in row.presets.items()}
    if name in presets:
        return *presets[name], None
    if name in ARCHITECTURES:
        return name, ARCHITECTURES[name].config(), None
    if not Path(name).is_dir():
        near = difflib.get_close_matches(name, [*presets, *ARCHITECTURES], n=1)
        hint = f"did you mean {near[0]}?" if near else f"architectures: {', '.join(ARCHITECTURES)}"
        raise ConfigError(f"name: {name!r} is no architecture, no published size and no folder; {hint}")
    config = read_json(resolve_folder(Path(name)) / "config.json")
    return *config_from_hf(config), quantization_of(config)


def rows_of(model: Part) -> Iterator[dict[str, Any]]:
    """Every part as a row: its place, its class, its shape, its parameters, and how often it stands there."""
    for depth, part in model.walk():
        yield {
            "depth": depth,
            "name": part.name,
            "brick": part.kind,
            "times": part.times,
            "shape": part.shape,
            "parameters": part.n_parameters,
            "shared_with": part.shared_with,
        }


def table(model: Part) -> Iterator[str]:
    """The rows, aligned; what lies deeper is indented."""
    rows = [("name", "brick", "shape", "parameters")]
    for depth, part in model.walk():
        kind = f"{part.times} x {part.kind}" if part.times > 1 else part.kind
        shape = f"{part.shape}, shared with {part.shared_with}" if part.shared_with else part.shape
        rows.append((f"{'  ' * depth}{part.name or 'model'}", kind, shape, f"{part.n_parameters:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, kind, shape, n in rows:
        yield f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}  {n:>{widths[3]}}"
