"""Write an architecture as one self-contained file: its recipe, with every brick it uses copied above it.

The bricks keep to a small, checked subset of Python, so that inlining is copying: a module holds imports of names and
top-level classes, functions and constants; it imports from the package only what earlier modules of READING_ORDER
define; a name means one thing in all of them. Nothing is rewritten: what a reader sees is what runs in the package.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from legollm.architectures import ARCHITECTURES, known

PACKAGE = "legollm"
ROOT = Path(__file__).parent
READING_ORDER = (
    "errors",
    "interfaces",
    "components.outside",
    "components.masks",
    "components.norm",
    "components.positions",
    "components.ngram_embedding",
    "components.block_sparse",
    "components.tiled",
    "components.flex",
    "components.spared",
    "components.attention",
    "components.feedforward",
    "components.quantized",
    "components.adapted",
    "components.routing",
    "components.moe",
    "components.blocks",
    "components.decoder",
    "components.places",
    "components.cross_attention",
    "components.encoder",
    "components.encoder_decoder",
    "components.init",
    "architectures.checks",
)


NOTICE = "One file that needs nothing but torch, written by `legollm eject {}`: change the bricks, not this copy."


class EjectError(Exception):
    """A brick does something that copying cannot carry over: a mistake in the package, not of its user."""


@dataclass
class Module:
    """One source file, split into its top-level definitions."""

    name: str
    doc: str
    lines: list[str]
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    from_outside: dict[str, tuple[str, str]] = field(default_factory=dict)
    """A name of torch or Python -> the module it comes from ("" for a module) and what to import."""
    from_package: dict[str, str] = field(default_factory=dict)
    """A name -> the module of the package it comes from."""


def eject(name: str) -> str:
    """The source text of a file that needs nothing but torch, and has the same weights and results.

    Raises:
        ConfigError: there is no such architecture.
    """
    recipe = parse(f"architectures.{known('name', name, ARCHITECTURES)}")
    modules = [*map(parse, READING_ORDER), recipe]
    check_names(modules)
    wanted = reachable({name, "PRESETS"}, modules)
    body = [f'"""{recipe.doc}\n\n{NOTICE.format(name)}\n"""\n\n{imports_of(wanted, modules)}']
    for module in modules:
        sources = [source_of(module, node) for defined, node in module.definitions.items() if defined in wanted]
        if sources:
            path = f"{PACKAGE}/{module.name.replace('.', '/')}.py"
            body.append("\n\n\n".join([f"# {'-' * 20} {path} {'-' * (90 - len(path))}", *sources]))
    return "\n\n\n".join(body) + "\n"


def write_pages(folder: Path) -> None:
    """Write NAME.md for every architecture: the ejected file as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ARCHITECTURES:
        (folder / f"{name}.md").write_text(page(name), encoding="utf-8")


def page(name: str) -> str:
    """A heading, a sentence, and the code."""
    return (
        f"# {name} in one file\n\n"
        f"Everything that happens between token ids and logits, and nothing else to install than torch; "
        f"`{PACKAGE} eject {name}` writes it.\n\n"
        f"```python\n{eject(name)}```\n"
    )


def parse(name: str) -> Module:
    """A module of the package, refused if it does more than import names and define things."""
    text = (ROOT / Path(*name.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    module = Module(name, ast.get_docstring(tree) or "", text.splitlines())
    for node in chain.from_iterable(map(unfolded, tree.body)):
        match node:
            case ast.ImportFrom(module=str(source), names=names, level=0) if source.startswith(f"{PACKAGE}."):
                module.from_package |= {alias.name: source.removeprefix(f"{PACKAGE}.") for alias in names}
                if any(alias.asname or alias.name == "*" for alias in names):
                    raise EjectError(f"{name}:{node.lineno}: a name of the package is imported as another")
            case ast.ImportFrom(module=source, names=names, level=0):
                module.from_outside |= {a.asname or a.name: (source or "", ast.unparse(a)) for a in names}
            case ast.Import(names=names):
                module.from_outside |= {a.asname or a.name: ("", ast.unparse(a)) for a in names}
            case (
                ast.ClassDef(name=defined)
                | ast.FunctionDef(name=defined)
                | ast.Assign(targets=[ast.Name(id=defined)])
                | ast.AnnAssign(target=ast.Name(id=defined))
            ):
                module.definitions[defined] = node
            case ast.Expr(value=ast.Constant(value=str())):
                pass  # the module's docstring
            case _:
                raise EjectError(f"{name}:{node.lineno}: more than imports of names and definitions")
    return module


def unfolded(node: ast.stmt) -> list[ast.stmt]:
    """The imports of an `if TYPE_CHECKING:`; anything else is itself."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=[]):
            return body
    return [node]


def check_names(modules: list[Module]) -> None:
    """A name means one thing in all modules, and is defined before it is imported."""
    home: dict[str, str] = {}
    for module in modules:
        for name, source in module.from_package.items():
            if source in READING_ORDER and home.get(name) != source:
                raise EjectError(f"{module.name}: imports {name} from {source}, which does not come before it")
        for name in module.definitions:
            if name in home:
                raise EjectError(f"{module.name}: {name} is also a name in {home[name]}")
            home[name] = module.name


def reachable(roots: set[str], modules: list[Module]) -> set[str]:
    """The definitions that `roots` use, and what those use, and so on."""
    definitions = {name: (module, node) for module in modules for name, node in module.definitions.items()}
    wanted: set[str] = set()
    todo = set(roots)
    while todo:
        wanted |= todo
        used: set[str] = set()
        for name in todo:
            module, node = definitions[name]
            names = names_in([node])
            if elsewhere := {n for n in names & module.from_package.keys() if n not in definitions}:
                raise EjectError(f"{module.name}: {name} uses {elsewhere.pop()}, which no module to read defines")
            used |= names & definitions.keys()
        todo = used - wanted
    return wanted


def names_in(nodes: Iterable[ast.stmt]) -> set[str]:
    """Every name that is read or written there."""
    found: set[str] = set()
    for node in nodes:
        for child in ast.walk(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                raise EjectError(f"line {child.lineno}: an import inside a definition cannot be copied")
            if isinstance(child, ast.Name):
                found.add(child.id)
    return found


def imports_of(wanted: set[str], modules: list[Module]) -> str:
    """The import statements that the wanted definitions need: Python's first, then torch's."""
    found: dict[str, set[str]] = {}
    for module in modules:
        for name in names_in(module.definitions[n] for n in wanted & module.definitions.keys()):
            if name in module.from_outside:
                source, what = module.from_outside[name]
                found.setdefault(source, set()).add(what)
    plain = [f"import {what}" for what in sorted(found.pop("", ()))]
    named = [f"from {source} import {', '.join(sorted(names))}" for source, names in sorted(found.items())]
    torch = [line for line in plain + named if line.split()[1].startswith("torch")]
    python = [line for line in plain + named if line not in torch]
    return "\n".join([*python, "", *torch])


def source_of(module: Module, node: ast.stmt) -> str:
    """The definition as written, with its decorators and the comment lines right above it."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1
    while module.lines[first - 1].startswith("#"):
        first -= 1
    return "\n".join(module.lines[first : node.end_lineno])
