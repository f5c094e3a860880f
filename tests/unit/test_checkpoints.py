"""Checkpoint folders: whole or absent, every damage found, the last good one always left."""

import errno
import hashlib
import json
import logging
import os
import pickle
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.gpt2 import GPT2Config
from legollm.checkpoints import manifest
from legollm.checkpoints.huggingface import load_weights
from legollm.checkpoints.manifest import atomic_folder, latest, remove_orphans, steps, verify
from legollm.checkpoints.state import (
    TrainingState,
    load_state,
    prepare_root,
    restore_rng,
    rng_tensors,
    save_checkpoint,
    save_model,
)
from legollm.errors import CheckpointError, DivergedError, IntegrityError
from legollm.tokenizers import ByteTokenizer

CONFIG = GPT2Config(vocab_size=257, max_seq_len=8, n_layers=1, n_heads=2, d_model=8)


def model_of(seed: int) -> nn.Module:
    return ARCHITECTURES["gpt2"].build(CONFIG, seed=seed)


def byte_tokenizer() -> ByteTokenizer:
    tokenizer = ByteTokenizer()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def save(root: Path, step: int, **more: Any) -> Path:
    """A checkpoint of a model whose seed is the step."""
    state = TrainingState({"loop": {"step": step}}, {"mean.x": torch.full((3,), float(step))} | rng_tensors())
    settings: dict[str, Any] = {"model": model_of(step), "tokenizer": byte_tokenizer(), "state": state} | more
    return save_checkpoint(root, step, arch="gpt2", config=CONFIG, **settings)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoints of a run. Nothing here cuts the power, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    root = tmp_path / "run" / "checkpoints"
    prepare_root(root)
    return root


# what is in it


def test_everything_comes_back(root: Path) -> None:
    folder = save(root, 5)
    assert folder == root / "step-00000005"
    verify(folder)
    other = model_of(99)
    load_weights(other, "gpt2", CONFIG, folder)
    for (name, a), (_, b) in zip(model_of(5).named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    state = load_state(folder)
    assert state.values["loop"] == {"step": 5}
    assert state.values["step"] == 5
    assert torch.equal(state.tensors["mean.x"], torch.full((3,), 5.0))


def test_random_numbers_go_on_where_they_were(root: Path) -> None:
    torch.manual_seed(3)
    torch.rand(10)
    folder = save(root, 1)
    torch.set_rng_state(load_state(folder).tensors["rng.cpu"])
    expected = torch.rand(5)
    torch.rand(100)
    restore_rng(load_state(folder).tensors)
    assert torch.equal(torch.rand(5), expected)


def test_the_manifest_lists_every_file_and_everyone_may_read_them(root: Path) -> None:
    folder = save(root, 5)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "optim.safetensors", "state.json", "tokenizer.json"} <= names
    assert json.loads((folder / "manifest.json").read_text())["files"].keys() == names - {"manifest.json"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_a_chat_model_says_what_ends_its_answers(root: Path) -> None:
    folder = save(root, 5, extra={"eos": "<|endoftext|>", "chat_template": "{{ messages }}"})
    assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 256
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 256


# whole or absent


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """Ends the process before its n-th operation on files, as the interpreter's audit events count them."""

    EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.chmod", "shutil.rmtree")

    def __init__(self) -> None:
        self.left: int | None = None  # None: not armed
        self.at = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left is None or event not in self.EVENTS:
            return
        if self.left == 0:  # a dead process does nothing any more, so this stays 0
            self.at = self.at or f"{event} {arguments[:2]}"
            raise Killed
        self.left -= 1


KILLER = Killer()
sys.addaudithook(KILLER)  # for good: hooks cannot be removed, but this one sleeps unless it is armed


@pytest.fixture
def killed_after() -> Iterator[Callable[[int, Callable[[], Any]], bool]]:
    def attempt(n_operations: int, action: Callable[[], Any]) -> bool:
        """Whether the action was killed before it had returned."""
        KILLER.left, KILLER.at = n_operations, ""
        try:
            action()
        except Killed:
            return True
        finally:
            KILLER.left = None
        return False

    yield attempt
    KILLER.left = None


def test_killed_before_any_operation_leaves_the_old_or_the_new(root: Path, killed_after: Any) -> None:
    """Two checkpoints are there; a third is written, and the first is dropped. Killed at each of its operations."""
    save(root, 5)
    save(root, 10)
    kept = root.with_name("kept")
    shutil.copytree(root, kept)
    seen = set[tuple[int, ...]]()
    tensors = model_of(15)
    for n in range(1000):
        was_killed = killed_after(n, lambda: save(root, 15, keep=2, model=tensors))
        here = steps(root)
        for path in here.values():
            verify(path)  # no half folder under a final name
        assert {10, 15} & here.keys(), KILLER.at
        newest = latest(root)
        assert newest is not None
        if not was_killed:
            assert newest.name == "step-00000015"  # acknowledged, so there
            assert list(here) == [15, 10]
            break
        seen.add(tuple(here))
        prepare_root(root)
        assert {path.name for path in root.iterdir()} == {f"step-{step:08d}" for step in here}
        shutil.rmtree(root)
        shutil.copytree(kept, root)
    assert seen == {(10, 5), (15, 10, 5), (15, 10)}  # killed before, after the rename, and while the oldest was dropped
    assert n > 30


def test_replacing_a_damaged_one_never_touches_the_others(root: Path, killed_after: Any) -> None:
    save(root, 5)
    save(root, 10)
    flip(root / "step-00000010" / "state.json", 3)
    kept = root.with_name("kept")
    shutil.copytree(root, kept)
    tensors = model_of(10)
    for n in range(1000):
        was_killed = killed_after(n, lambda: save(root, 10, model=tensors))
        verify(root / "step-00000005")
        if not was_killed:
            verify(root / "step-00000010")
            break
        shutil.rmtree(root)
        shutil.copytree(kept, root)
    assert n > 30


def test_every_file_is_synced_before_the_rename_and_the_parent_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = list[str]()
    rename = Path.rename
    monkeypatch.setattr(manifest, "sync", lambda path: events.append(path.name))
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1])
    with atomic_folder(tmp_path / "final") as temporary:
        (temporary / "b").write_text("b")
        (temporary / "a").write_text("a")
    assert events == ["a", "b", "manifest.json", temporary.name, "rename", tmp_path.name]


def test_an_error_while_writing_leaves_nothing(root: Path) -> None:
    def fail_half_way() -> None:
        with atomic_folder(root / "final") as temporary:
            (temporary / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert list(root.iterdir()) == []


def test_another_folder_is_never_overwritten(root: Path) -> None:
    mine = root / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(CheckpointError, match="exists already"):
        save_model(mine, model_of(1), "gpt2", CONFIG, None)
    assert (mine / "thesis.txt").read_text() == "years"


def test_orphans_are_removed_and_nothing_else(root: Path) -> None:
    whole = save(root, 5)
    orphan = root / ".tmp-step-00000010-4711"
    shutil.copytree(whole, orphan)
    remove_orphans(root)
    assert [path.name for path in root.iterdir()] == ["step-00000005"]
    remove_orphans(root / "nowhere")


# damage


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def assert_found(folder: Path, damaged: Path, before: bytes) -> None:
    """verify names the file, and for all but the manifest itself the two hashes."""
    with pytest.raises(IntegrityError) as caught:
        verify(folder)
    said = str(caught.value)
    assert caught.value.exit_status == 5
    if damaged.name == "manifest.json":
        assert "manifest.json" in said
        return
    assert str(damaged) in said
    for content in (before, damaged.read_bytes()):
        assert hashlib.sha256(content).hexdigest() in said


@pytest.mark.parametrize("n", [300, pytest.param(2000, marks=pytest.mark.soak)])
def test_flipped_bits_are_all_found(root: Path, n: int) -> None:
    folder = save(root, 5)
    files, rng = sorted(folder.iterdir()), random.Random(0)
    for i in range(n):
        path = files[i % len(files)]
        before = path.read_bytes()
        flip(path, rng.randrange(8 * len(before)))
        assert_found(folder, path, before)
        path.write_bytes(before)
    verify(folder)


def test_every_byte_of_the_manifest_matters(root: Path) -> None:
    folder = root / "small"
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("a")
    path = folder / "manifest.json"
    before = path.read_bytes()
    for bit in range(0, 8 * len(before), 7):  # each byte, each of the eight places in turn
        flip(path, bit)
        with pytest.raises(IntegrityError):
            verify(folder)
        path.write_bytes(before)
    verify(folder)


@pytest.mark.parametrize("n", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_truncations_are_all_found(root: Path, n: int) -> None:
    folder = save(root, 5)
    files, rng = sorted(folder.iterdir()), random.Random(1)
    for i in range(n):
        path = files[i % len(files)]
        before = path.read_bytes()
        path.write_bytes(before[: rng.randrange(len(before))])
        assert_found(folder, path, before)
        path.write_bytes(before)


@pytest.mark.parametrize("name", ["model.safetensors", "optim.safetensors", "state.json"])
def test_a_file_of_another_step_is_found(root: Path, name: str) -> None:
    old, new = save(root, 5), save(root, 10)
    before = (new / name).read_bytes()
    assert (old / name).stat().st_size == len(before) or name == "state.json"
    shutil.copy(old / name, new / name)
    assert_found(new, new / name, before)


def test_a_file_that_is_gone_is_named(root: Path) -> None:
    folder = save(root, 5)
    (folder / "optim.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"optim\.safetensors: missing"):
        verify(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        verify(folder)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"version": 1}', '{"version": 1, "files": []}', "\x00"])
def test_a_manifest_that_is_something_else(root: Path, text: str) -> None:
    folder = save(root, 5)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"manifest\.json: damaged"):
        verify(folder)
    if "files" in text:
        (folder / "manifest.json").write_text(manifest.canonical(json.loads(text)))
        with pytest.raises(IntegrityError, match=r"manifest\.json: damaged"):
            verify(folder)


def test_a_manifest_cannot_point_out_of_its_folder(root: Path) -> None:
    folder = save(root, 5)
    (root / "secret").write_text("x")
    entry = {"bytes": 1, "sha256": manifest.sha256(root / "secret")}
    (folder / "manifest.json").write_text(manifest.canonical({"version": 1, "files": {"../secret": entry}}))
    with pytest.raises(IntegrityError, match="secret: missing"):
        verify(folder)


def test_latest_falls_back_to_the_one_before_and_says_so(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (5, 10, 15):
        save(root, step, keep=3)
    assert latest(root) == root / "step-00000015"
    assert not caplog.records
    flip(root / "step-00000015" / "optim.safetensors", 5000)
    (root / "step-00000010" / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert latest(root) == root / "step-00000005"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "step-00000015/optim.safetensors: damaged" in messages[0].replace(os.sep, "/")
    assert all(message.endswith("step-00000005 instead") for message in messages)
    flip(root / "step-00000005" / "config.json", 9)
    assert latest(root) is None
    assert latest(root / "nowhere") is None


def test_a_pickle_in_place_of_tensors_is_refused_not_run(root: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was-run",))

    folder = save(root, 5)
    (folder / "optim.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="the training state cannot be read"):
        load_state(folder)
    assert not (tmp_path / "was-run").exists()


# what is kept


def test_the_newest_and_the_best_are_kept(root: Path) -> None:
    for step in (5, 10, 15, 20, 25):
        save(root, step, keep=2, best=min(step, 10))
    assert list(steps(root)) == [25, 20, 10]
    save(root, 30, keep=2, best=25)
    assert list(steps(root)) == [30, 25]
    save(root, 35, keep=4, best=None)
    assert list(steps(root)) == [35, 30, 25]


def test_what_was_just_written_is_kept_whatever_else_is_there(root: Path) -> None:
    """Damaged checkpoints of later steps are no reason to drop the only good one."""
    for step in (20, 30):
        save(root, step)
        flip(root / f"step-{step:08d}" / "config.json", 0)
    save(root, 10, keep=2)
    assert latest(root) == root / "step-00000010"


def test_the_link_points_at_the_newest(root: Path) -> None:
    link = root.parent / "checkpoint"
    for step in (5, 10):
        save(root, step)
        assert link.is_symlink()
        assert link.resolve() == (root / f"step-{step:08d}").resolve()
    assert not os.path.isabs(os.readlink(link))  # so that a run can be moved
    moved = root.parent.rename(root.parent.with_name("moved"))
    assert (moved / "checkpoint" / "config.json").exists()


def test_no_links_on_this_system_is_no_failure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    save(root, 5)
    assert latest(root) == root / "step-00000005"
    assert not (root.parent / "checkpoint").exists()


# refusals


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(root: Path, value: float) -> None:
    save(root, 5)
    model = model_of(10)
    model.get_parameter("blocks.0.ffn.up_proj.bias").data[2] = value
    with pytest.raises(
        DivergedError, match=r"1 tensors hold numbers that are not finite, first blocks\.0\.ffn"
    ) as caught:
        save(root, 10, model=model)
    assert caught.value.exit_status == 4
    spoiled = TrainingState({}, {"mean.x": torch.tensor([0.0, value])} | rng_tensors())
    with pytest.raises(DivergedError, match=r"first mean\.x"):  # the weights would follow
        save(root, 10, state=spoiled)
    with pytest.raises(CheckpointError, match="not finite"):
        save_model(root / "export", model, "gpt2", CONFIG, None)
    assert [path.name for path in root.iterdir()] == ["step-00000005"]


def test_a_disk_that_does_not_sync_is_reported_and_the_last_good_one_loads(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(root, 5)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"step-00000010: could not be written \(No space left on device\) after"):
        save(root, 10)
    assert_only_five(root)


@pytest.mark.parametrize("max_bytes", [100, 3_000, 13_000])
def test_a_disk_that_is_full_is_reported_and_the_last_good_one_loads(root: Path, max_bytes: int) -> None:
    """The limit refuses config.json, model.safetensors or optim.safetensors: each written by another library."""
    save(root, 5)
    big = TrainingState({}, {"x": torch.zeros(10_000)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"could not be written \(.*File too large.*bytes free; earlier"):
            save(root, 10, state=big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_only_five(root)


def test_a_disk_that_lies_is_found_before_anything_older_is_dropped(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(root, 5)
    rename = Path.rename

    def rename_and_damage(self: Path, target: Path) -> Path:
        flip(self / "model.safetensors", 10_000)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_and_damage)
    with pytest.raises(IntegrityError, match=r"model\.safetensors: damaged"):
        save(root, 10, keep=1)
    assert latest(root) == root / "step-00000005"


def assert_only_five(root: Path) -> None:
    assert [path.name for path in root.iterdir()] == ["step-00000005"]
    assert latest(root) == root / "step-00000005"
    load_weights(model_of(0), "gpt2", CONFIG, root / "step-00000005")


def test_a_model_without_training_state_says_so(root: Path) -> None:
    save_model(root / "export", model_of(1), "gpt2", CONFIG, byte_tokenizer())
    verify(root / "export")
    with pytest.raises(CheckpointError, match="holds a model but no training state; start a new run from it"):
        load_state(root / "export")


def test_a_state_of_another_version_or_kind_says_so(root: Path) -> None:
    folder = save(root, 5)
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(
        CheckpointError, match=r"format 2 of legollm \d.*; this version reads 1; continue with the one that wrote it"
    ):
        load_state(folder)
    for text in ("{", "[1]"):
        path.write_text(text)
        with pytest.raises(CheckpointError, match="the training state cannot be read"):
            load_state(folder)
