"""Folders made to mislead: each is refused with one line that says what to do, and nothing outside it is opened."""

import json
import os
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from legollm.checkpoints import reader
from legollm.checkpoints.convert import convert
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder
from legollm.checkpoints.reader import TensorFile, inside
from legollm.cli import main
from legollm.errors import CheckpointError
from tiny_models import some_tokens, tiny_config, tiny_model

Change = Callable[[Path], None]
WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"
POINTER = "version https://git-lfs.github.example/spec/v1\noid sha256:0\nsize 5\n"


def header(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Another header in front of the same bytes."""

    def apply(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (n,) = struct.unpack("<Q", data[:8])
        document = json.loads(data[8 : 8 + n])
        change(document)
        rewrite(folder, json.dumps(document).encode(), data[8 + n :])

    return apply


def rewrite(folder: Path, text: bytes, data: bytes) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data)


def field(name: str, **changes: Any) -> Change:
    return header(lambda document: document[name].update(changes))


def shift(by: int, *, both: bool = True) -> Change:
    """Move the tensor that is stored second."""

    def change(document: dict[str, Any]) -> None:
        spans = {name: one["data_offsets"] for name, one in document.items() if name != "__metadata__"}
        second = sorted(spans, key=lambda name: spans[name][0])[1]
        start, end = spans[second]
        document[second]["data_offsets"] = [start + by, end + by * both]

    return header(change)


def sharded(folder: Path) -> dict[str, str]:
    """Make it two shards and an index."""
    data = (folder / WEIGHTS).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    spans = {k: v for k, v in json.loads(data[8 : 8 + n]).items() if k != "__metadata__"}
    order = sorted(spans, key=lambda name: spans[name]["data_offsets"][0])
    where = {}
    for number, names in enumerate([order[:5], order[5:]], 1):
        base, file = spans[names[0]]["data_offsets"][0], f"model-{number:05}-of-00002.safetensors"
        end = spans[names[-1]]["data_offsets"][1]
        head = {k: spans[k] | {"data_offsets": [one - base for one in spans[k]["data_offsets"]]} for k in names}
        text = json.dumps(head).encode()
        (folder / file).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n + base : 8 + n + end])
        where |= dict.fromkeys(names, file)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    return where


def indexed(change: Callable[[Path, dict[str, str]], Any]) -> Change:
    """Shards whose index, or whose folder, is changed."""

    def apply(folder: Path) -> None:
        where = sharded(folder)
        change(folder, where)
        (folder / INDEX).write_text(json.dumps({"weight_map": where}))

    return apply


def copy_second(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / "model-00002-of-00002.safetensors").read_bytes())


def link_out(name: str) -> Change:
    def apply(folder: Path) -> None:
        outside = folder.parent / f"outside-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return apply


def link_shard_out(folder: Path) -> None:
    sharded(folder)
    link_out("model-00002-of-00002.safetensors")(folder)


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def config(**changes: Any) -> Change:
    return lambda folder: (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | changes))


def config_text(old: str, new: str) -> Change:
    def apply(folder: Path) -> None:
        before = (folder / CONFIG).read_text()
        assert old in before
        (folder / CONFIG).write_text(before.replace(old, new))

    return apply


def repeat_header_key(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    rewrite(folder, data[8 : 8 + n].rstrip()[:-1] + f',"{NORM}":{{}}}}'.encode(), data[8 + n :])


def vast_header(folder: Path) -> None:
    with (folder / WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", 150_000_000))
        file.truncate(160_000_000)  # sparse: takes no room


def vast_config(folder: Path) -> None:
    with (folder / CONFIG).open("wb") as file:
        file.truncate(300_000_000)


def cut(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 4)


def cut_header(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 100)


def append(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"more")


def index_pointer(folder: Path) -> None:
    sharded(folder)
    (folder / INDEX).write_text(POINTER)


def pipe(folder: Path) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


WRONG: dict[str, tuple[Change, str]] = {
    "weights are a pointer": (text(WEIGHTS, POINTER), "a pointer to a large file, not the file; run `git lfs pull`"),
    "config is a pointer": (text(CONFIG, POINTER), "config.json: a pointer to a large file"),
    "index is a pointer": (index_pointer, "index.json: a pointer to a large file"),
    "shard missing": (indexed(lambda f, w: (f / w[NORM]).unlink()), "missing; .*index.json lists it; fetch it"),
    "shard too many": (
        indexed(lambda f, w: copy_second(f, "model-00003-of-00003.safetensors")),
        "does not list model-00003-of-00003.safetensors; remove them",
    ),
    "shard twice": (
        indexed(lambda f, w: (copy_second(f, "x.safetensors"), w.update(y="x.safetensors"))),
        "also in another shard; fetch the folder again",
    ),
    "tensor in the wrong shard": (
        indexed(lambda f, w: w.update({NORM: "model-00001-of-00002.safetensors"})),
        rf"is not what .*: 1 missing: {NORM}",
    ),
    "tensor that the index does not list": (indexed(lambda f, w: w.pop(NORM)), rf"1 not in the index: {NORM}"),
    "index upwards": (indexed(lambda f, w: w.update(x="../a.safetensors")), "'../a.safetensors' is not the plain name"),
    "index from the root": (indexed(lambda f, w: w.update(x="/etc/a.safetensors")), "is not the plain name"),
    "index of a drive": (indexed(lambda f, w: w.update(x="..\\a.safetensors")), "is not the plain name"),
    "index to nothing": (indexed(lambda f, w: w.update(x="a\0.safetensors")), "is not the plain name"),
    "config is a link out": (link_out(CONFIG), "a link to .*, outside of the folder; put the file itself there"),
    "weights are a link out": (link_out(WEIGHTS), "a link to .*, outside of the folder"),
    "shard is a link out": (link_shard_out, "a link to .*, outside of the folder"),
    "header beyond the limit": (vast_header, "a header of 150,000,000 bytes, and 100,000,000 is the limit"),
    "config without end": (vast_config, "300,000,000 bytes of JSON"),
    "header beyond the file": (cut_header, "cut short: a header of .* bytes in a file of 100; fetch it again"),
    "tensors overlap": (shift(-4), "overlaps the tensor before it; fetch it again"),
    "a hole between tensors": (shift(4), "comes after a hole"),
    "a length that is not the shape's": (shift(4, both=False), "bytes where its shape takes"),
    "offsets beyond the file": (field(NORM, data_offsets=[10**9, 10**9 + 128]), "comes after a hole"),
    "offsets below zero": (field(NORM, data_offsets=[-128, 0]), "impossible shape or offset"),
    "offsets that are no numbers": (field(NORM, data_offsets=["0", "128"]), "no dtype, shape and two offsets"),
    "offsets that are true": (field(NORM, data_offsets=[False, True]), "impossible shape or offset"),
    "a shape without end": (field(NORM, shape=[2**62, 4]), "impossible shape or offset"),
    "a shape that wraps around": (field(NORM, shape=[2**40, 2**40]), "bytes where its shape takes"),
    "another dtype of the same width": (field(NORM, dtype="I32"), f"1 of a dtype other than .*: {NORM} I32"),
    "a dtype of another width": (field(NORM, dtype="F16"), "128 bytes where its shape takes 64"),
    "an unknown dtype": (field(NORM, dtype="Q4"), "the unknown dtype 'Q4'"),
    "another shape": (field(NORM, shape=[4, 8]), rf"1 of another shape: {NORM} \[4, 8\] instead of \[32\]"),
    "a tensor that is no object": (header(lambda d: d.update({NORM: 5})), "has no dtype, shape and two offsets"),
    "cut short": (cut, "cut short: .* bytes instead of .*; fetch it again"),
    "bytes behind the end": (append, "bytes instead of"),
    "a key twice in the header": (repeat_header_key, f"the key '{NORM}' occurs twice"),
    "a key twice in the config": (config_text('"vocab_size"', '"vocab_size": 5, "vocab_size"'), "'vocab_size' occurs"),
    "NaN in the config": (config_text('"rms_norm_eps": 1e-05', '"rms_norm_eps": NaN'), "NaN is no finite number"),
    "infinity in the config": (config_text('"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e999'), "1e999 is no finite"),
    "JSON without bottom": (text(CONFIG, "[" * 100_000), "cannot be read as JSON"),
    "unknown model": (config(model_type="mamba"), "model_type 'mamba' is not supported; supported: "),
    "own code": (config(auto_map={"AutoModelForCausalLM": "evil.Model"}), "auto_map asks to run code"),
    "layers without end": (config(num_hidden_layers=10**6), "n_layers is 1000000, and the files hold 21 tensors"),
    "a vocabulary without end": (config(vocab_size=10**19), "vocab_size is 10000000000000000000, and 67108864 is"),
    "a pipe instead of a file": (pipe, "no such file"),
}


opened: list[str] | None = None


def listen(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and opened is not None and isinstance(args[0], str):
        opened.append(os.path.realpath(args[0]))


sys.addaudithook(listen)  # cannot be taken away again, so it does nothing between tests


@pytest.fixture
def files_opened() -> Iterator[list[str]]:
    global opened
    opened = found = []
    yield found
    opened = None


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What torch imports when it is first asked for a model without memory counts for no test."""
    folder = tmp_path_factory.mktemp("warm")
    save_hf_folder(folder, "llama3", tiny_config("llama3"), tiny_model("llama3"))
    load_hf_folder(folder)


def test_there_are_enough() -> None:
    assert len(WRONG) >= 25


@pytest.mark.parametrize("case", WRONG)
def test_a_crafted_folder_is_refused(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_opened: list[str]
) -> None:
    change, message = WRONG[case]
    folder = tmp_path / "model"
    save_hf_folder(folder, "llama3", tiny_config("llama3"), tiny_model("llama3"))
    change(folder)
    monkeypatch.setattr(TensorFile, "read", lambda *_: pytest.fail("tensors were read before the check"))
    files_opened.clear()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_hf_folder(folder)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_500
    here = [path for path in files_opened if path.startswith(str(tmp_path))]
    assert [path for path in here if not path.startswith(str(folder) + os.sep)] == []


def test_what_is_changed_is_what_is_refused(tmp_path: Path) -> None:
    """The same folder in one file and in shards, unchanged."""
    model = tiny_model("llama3")
    save_hf_folder(tmp_path, "llama3", tiny_config("llama3"), model)
    for change in (lambda folder: None, sharded):
        change(tmp_path)
        _, _, loaded = load_hf_folder(tmp_path)
        assert (loaded.eval()(some_tokens(1, 5)) == model(some_tokens(1, 5))).all()


def test_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_hf_folder(tmp_path / "model", "llama3", tiny_config("llama3"), tiny_model("llama3"))
    shift(-4)(tmp_path / "model")
    assert main(["import", str(tmp_path / "model"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "overlaps the tensor before it" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_links_within_a_download_cache_are_followed(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "0123abc"
    save_hf_folder(blobs, "gpt2", tiny_config("gpt2"), tiny_model("gpt2"))
    folder.mkdir(parents=True)
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(f"../../blobs/{path.name}")
    assert load_hf_folder(folder)[0] == "gpt2"
    (tmp_path / "elsewhere").mkdir()
    (folder / CONFIG).unlink()
    (folder / CONFIG).symlink_to(tmp_path / "elsewhere" / CONFIG)
    with pytest.raises(CheckpointError, match="outside of the folder"):
        load_hf_folder(folder)


def test_a_tokenizer_that_is_a_link_out_does_not_come_along(tmp_path: Path) -> None:
    save_hf_folder(tmp_path / "model", "llama3", tiny_config("llama3"), tiny_model("llama3"))
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "model" / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"tokenizer.json: a link to .*, outside of the folder"):
        convert(tmp_path / "model", tmp_path / "out")


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", "", "a\\b", "a\0b"])
def test_only_plain_names_are_inside(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not the plain name of a file"):
        inside(tmp_path, name)


def test_rows_of_a_tensor(tmp_path: Path) -> None:
    save_hf_folder(tmp_path, "llama3", tiny_config("llama3"), tiny_model("llama3"))
    file = reader.TensorFile(tmp_path / WEIGHTS)
    whole = file.read(EMBED)
    assert (file.read(EMBED, 3, 7) == whole[3:7]).all()
    assert file.read(EMBED, 7, 7).shape == (0, 32)
