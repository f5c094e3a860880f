"""Encoders, encoder-decoders and what is around them: what sees what, cached equals recomputed, pairs and verbs."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm import cli
from legollm.architectures import ARCHITECTURES, build
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder
from legollm.commands.material import TokenizerConfig
from legollm.commands.seq2seq import Seq2SeqRun, SourceTargetConfig, fit_pairs
from legollm.components.decoder import Decoder
from legollm.data.pairs import (
    Labelled,
    ShuffledBatches,
    SourceTarget,
    TextPair,
    in_order,
    label_batch,
    read_pairs,
    reversals,
    right_padded,
    source_batch,
    split_pairs,
)
from legollm.errors import ConfigError, DataError
from legollm.generation.cache import FullCache
from legollm.generation.sampling import Sampling
from legollm.generation.targets import write_targets
from legollm.tokenizers import ByteTokenizer
from legollm.training.pairs import LabelOfText, NextGivenSource
from tiny_models import VOCAB, some_tokens

ROOT = Path(__file__).parents[2]
SIZES: dict[str, Any] = {"vocab_size": VOCAB, "d_model": 32, "d_ff": 48, "n_heads": 4}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "post-norm": ("transformer", SIZES),
    "pre-norm": ("transformer", SIZES | {"pre_norm": True, "tie_embeddings": False}),
    "t5": ("t5", SIZES | {"d_head": 8, "n_buckets": 8, "max_distance": 12, "n_decoder_layers": 3}),
    "t5 1.1": ("t5", SIZES | {"d_head": 8, "gated": True, "tie_embeddings": False}),
}
LABELS = ("no", "yes", "maybe")
WRITERS = pytest.mark.parametrize("kind", KINDS)


def varied(model: nn.Module) -> Any:
    """With weights large enough that every part of it matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double().eval()


def writer(kind: str, **changes: Any) -> Any:
    arch, sizes = KINDS[kind]
    return varied(build(arch, **(sizes | changes)))


def classifier() -> Any:
    return varied(build("encoder_classifier", **SIZES, labels=LABELS, max_seq_len=40))


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


# What sees what


def test_every_token_of_an_encoder_sees_every_other() -> None:
    encoder, tokens = writer("t5").encoder, some_tokens(1, 9)
    before = encoder(tokens)
    for place in (0, 4, 8):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB
        assert ((encoder(changed) - before).abs().amax(-1) > 1e-6).all()


@WRITERS
def test_a_target_token_sees_all_of_the_source_and_nothing_after_itself(kind: str) -> None:
    model, source, target = writer(kind), some_tokens(1, 7), some_tokens(1, 6, seed=1)
    before = model(source, target)
    for place in (0, 6):
        changed = source.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB
        assert ((model(changed, target) - before).abs().amax(-1) > 1e-6).all()
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VOCAB
    after = model(source, changed)
    assert torch.equal(after[:, :3], before[:, :3])
    assert ((after - before)[:, 3:].abs().amax(-1) > 1e-6).all()


@WRITERS
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_the_source_leaves_no_trace(kind: str, side: str) -> None:
    model, rows = writer(kind), [some_tokens(n, seed=n) for n in (2, 9, 5)]
    source, positions = right_padded([row.tolist() for row in rows])
    if side == "left":
        source, positions = source.flip(1), positions.flip(1)
        rows = [row.flip(0) for row in rows]
        positions = torch.stack([torch.where(p >= 0, (p >= 0).cumsum(0) - 1, -1) for p in positions])
    source = source.masked_fill(positions < 0, 50)  # whatever stands under it
    target = some_tokens(3, 6, seed=1)
    logits = model(source, target, positions)
    for i, row in enumerate(rows):
        close(logits[i], model(row[None], target[i : i + 1])[0])


@WRITERS
def test_padding_of_the_target_leaves_no_trace(kind: str) -> None:
    model, source = writer(kind), some_tokens(2, 5)
    long, short = some_tokens(6, seed=1), some_tokens(4, seed=2)
    tokens = torch.stack([long, torch.cat([torch.tensor([50, 50]), short])])
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [-1, -1, 0, 1, 2, 3]])
    logits = model(source, tokens, positions=positions)
    close(logits[0], model(source[:1], long[None])[0])
    close(logits[1, 2:], model(source[1:], short[None])[0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_a_label(side: str) -> None:
    model, rows = classifier(), [some_tokens(n, seed=n) for n in (2, 9, 5)]
    tokens, positions = right_padded([row.tolist() for row in rows])
    if side == "left":
        shifts = [int((p < 0).sum()) for p in positions]
        tokens = torch.stack([row.roll(n) for row, n in zip(tokens, shifts, strict=True)])
        positions = torch.stack([p.roll(n) for p, n in zip(positions, shifts, strict=True)])
    logits = model(tokens.masked_fill(positions < 0, 50), positions)
    assert logits.shape == (3, 3)
    for got, row in zip(logits, rows, strict=True):
        close(got, model(row[None])[0])


# Caches and writing


@WRITERS
@pytest.mark.parametrize("pieces", [(8,), (1,) * 8, (5, 2, 1)], ids=str)
def test_cached_equals_recomputed(kind: str, pieces: tuple[int, ...]) -> None:
    model, target = writer(kind), some_tokens(3, 8, seed=1)
    source, positions = right_padded([some_tokens(n, seed=n).tolist() for n in (2, 9, 5)])
    given = model.given(source, positions)
    assert isinstance(given, Decoder)
    cache = FullCache.for_model(given, 3, 8)
    parts = [given(piece, cache=cache) for piece in target.split(pieces, 1)]
    close(torch.cat(parts, 1), model(source, target, positions))


@WRITERS
def test_a_source_is_read_once_however_much_is_written(kind: str) -> None:
    model, reads = writer(kind), []
    model.encoder.register_forward_hook(lambda *_: reads.append("encoder"))
    for block in model.blocks:
        block.cross_attn.k_proj.register_forward_hook(lambda *_: reads.append("keys"))
    write_targets(model, [[1, 2, 3]], 0, Sampling(temperature=0, max_new_tokens=7))
    assert sorted(reads) == ["encoder", *["keys"] * len(model.blocks)]


@WRITERS
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_targets_are_the_same_alone_in_batches_and_without_a_cache(kind: str, temperature: float) -> None:
    model = writer(kind)
    sources = [some_tokens(n, seed=n).tolist() for n in (3, 8, 5, 8, 1)]
    sampling = Sampling(temperature=temperature, max_new_tokens=6, seed=4)
    together = write_targets(model, sources, 0, sampling)
    assert together == write_targets(model, sources, 0, sampling, batch_size=2)
    assert together == write_targets(model, sources, 0, sampling, use_cache=False)
    assert len({tuple(row) for row in together}) > 1
    for i, source in enumerate(sources):
        alone = Sampling(temperature=temperature, max_new_tokens=6, seed=4 + i)
        assert write_targets(model, [source], 0, alone) == [together[i]]


def test_a_target_ends_before_its_stop_token() -> None:
    model, sources = writer("t5"), [some_tokens(n, seed=n).tolist() for n in (3, 8, 5)]
    sampling = Sampling(temperature=0, max_new_tokens=9)
    free = write_targets(model, sources, 0, sampling)
    stop = free[0][4]
    ended = write_targets(model, sources, 0, sampling, stop_ids=[stop])
    assert ended == [row[: row.index(stop)] if stop in row else row for row in free]


# Weights


@WRITERS
def test_gradients_reach_every_parameter(kind: str) -> None:
    model = writer(kind).train()
    batch = source_batch([SourceTarget([1, 2, 3], [4, 5, 6]), SourceTarget([7, 8], [9, 2])], start_id=0)
    NextGivenSource()(model, batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@WRITERS
def test_folders_go_and_come_back(kind: str, tmp_path: Path) -> None:
    arch, sizes = KINDS[kind]
    model, cfg = build(arch, **sizes).eval(), ARCHITECTURES[arch].config(**sizes)
    save_hf_folder(tmp_path, arch, cfg, model)
    found_arch, found, loaded = load_hf_folder(tmp_path)
    assert (found_arch, found) == (arch, cfg)
    source, target = some_tokens(2, 5), some_tokens(2, 4)
    assert torch.equal(loaded.eval()(source, target), model(source, target))
    assert len(list(loaded.parameters())) == len(list(model.parameters()))  # what was one tensor is one again


def test_tables_are_shared_or_not() -> None:
    tied, free = (writer("t5", tie_embeddings=tie) for tie in (True, False))
    assert tied.lm_head.weight is tied.embed.weight is tied.encoder.embed.weight
    assert free.lm_head.weight is not free.embed.weight is free.encoder.embed.weight
    tied, free = (writer("post-norm", tie_embeddings=tie) for tie in (True, False))
    assert tied.lm_head.weight is tied.embed.tokens.weight is tied.encoder.embed.tokens.weight
    assert len({id(free.lm_head.weight), id(free.embed.tokens.weight), id(free.encoder.embed.tokens.weight)}) == 3


@WRITERS
def test_an_untrained_writer_knows_nothing(kind: str) -> None:
    arch, sizes = KINDS[kind]
    batch = source_batch([SourceTarget([1, 2, 3], some_tokens(40).tolist())], start_id=0)
    loss = NextGivenSource()(build(arch, **sizes), batch) / 40
    assert loss.item() == pytest.approx(torch.tensor(VOCAB).log().item(), abs=0.3)


@pytest.mark.slow
def test_it_compiles_in_one_piece() -> None:
    model, source, target = writer("t5", n_layers=1, n_decoder_layers=1), some_tokens(2, 5), some_tokens(2, 4)
    torch._dynamo.reset()
    close(torch.compile(model, backend="eager", fullgraph=True)(source, target), model(source, target))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_buckets": 8, "max_distance": 4}, "max_distance: 4 has to be above half of n_buckets = 8"),
        ({"n_decoder_layers": 0}, "n_decoder_layers: expected a whole number from 1"),
    ],
)
def test_impossible_sizes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("t5", **settings)
    with pytest.raises(ConfigError, match="labels: expected one or more different names"):
        build("encoder_classifier", labels=("a", "a"))


# Pairs


def test_a_batch_of_pairs() -> None:
    batch = source_batch([SourceTarget([5, 6, 9], [7, 9]), SourceTarget([4], [8, 3, 9])], start_id=2)
    assert batch.source.tolist() == [[5, 6, 9], [4, 0, 0]]
    assert batch.source_positions.tolist() == [[0, 1, 2], [0, -1, -1]]
    assert batch.tokens.tolist() == [[2, 7, 0], [2, 8, 3]]
    assert batch.targets.tolist() == [[7, 9, -100], [8, 3, 9]]
    assert NextGivenSource().n_terms(batch) == 5
    labelled = label_batch([Labelled([5, 6], 1), Labelled([7], 0)])
    assert [part.tolist() for part in labelled] == [[[5, 6], [7, 0]], [[0, 1], [0, -1]], [1, 0]]
    assert LabelOfText().n_terms(labelled) == 2


def test_a_loss_does_not_depend_on_how_rows_are_batched() -> None:
    model, objective = writer("t5"), NextGivenSource()
    pairs = [SourceTarget([5, 6, 9], [7, 9]), SourceTarget([4], [8, 3, 9])]
    apart = sum(objective(model, source_batch([pair], 2)) for pair in pairs)
    close(objective(model, source_batch(pairs, 2)), apart)
    scorer, texts = classifier(), [Labelled([5, 6], 1), Labelled([7, 8, 9], 2)]
    close(LabelOfText()(scorer, label_batch(texts)), sum(LabelOfText()(scorer, label_batch([t])) for t in texts))


def test_batches_go_over_all_examples_and_can_be_continued() -> None:
    def batches(**changes: Any) -> ShuffledBatches[int]:
        return ShuffledBatches(**({"examples": range(10), "collate": list, "batch_size": 4, "seed": 3} | changes))

    source = batches()
    seen = [next(source) for _ in range(5)]
    assert sorted(chain(*seen)) == sorted([*range(10)] * 2)
    assert [*chain(*seen)][:10] != [*range(10)]
    other = batches()
    next(other)
    other.load_state_dict(json.loads(json.dumps({**source.state_dict(), "n_seen": 8})))
    assert [next(other) for _ in range(3)] == seen[2:]
    with pytest.raises(DataError, match="n_examples = 10, this run 9"):
        batches(examples=range(9)).load_state_dict(source.state_dict())
    assert list(in_order([1, 2, 3], list, 2)) == [[1, 2], [3]]


def test_no_text_is_on_both_sides() -> None:
    words = reversals(1, 500, 3)
    assert all(pair.wanted == pair.given[::-1] for pair in words)
    assert len({pair.given for pair in words}) == len(words)
    pairs = [*words, *(TextPair(pair.given, "something else") for pair in words)]
    train, val = split_pairs(pairs, 0.2)
    assert len(train) + len(val) == len(pairs)
    assert not {pair.given for pair in train} & {pair.given for pair in val}
    assert 0.1 < len(val) / len(pairs) < 0.3
    assert reversals(1, 500, 3) == words != reversals(2, 500, 3)
    with pytest.raises(DataError, match=r"1 rows give .* to check with"):
        split_pairs(pairs[:1], 0.2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("\n", "no rows in it"),
        ('{"source": "a"}', "rows.jsonl:1: expected text in the field 'target'; the row has 'source'"),
        ('{"source": "a", "target": "b"}\n{"source": "", "target": "b"}', "rows.jsonl:2: .*'source'"),
        ('{"source": "a", "target": 3}', "'target'"),
    ],
)
def test_rows_that_are_no_pairs_are_named(rows: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / "rows.jsonl", "source", "target")


# Verbs

QUICK = ["train.eval_every=0", "train.save_every=0", "train.precision=float32", "train.device=cpu"]
SMALL = ["model.d_model=16", "model.d_ff=16", "model.n_layers=1", "model.n_heads=2", *QUICK]


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert cli.main(words) == status
    out, err = capsys.readouterr()
    return str(err if status else out)


@pytest.mark.parametrize("model", [[], ["model.arch=t5", "model.d_head=8", "model.gated=true", "tokenizer=byte"]])
def test_pairs_from_file_to_writing(
    model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"source": pair.given, "target": pair.wanted} for pair in reversals(0, 60, 5)]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ["seq2seq", "train", "data.source=pairs.jsonl", "run=run", "train.max_steps=2", "data.val_fraction=0.2"]
    out = run(capsys, *words, *SMALL, *model)
    assert "run: 2 steps" in out
    assert "exact match on unseen sources, greedy: 0 of " in out
    again = run(capsys, *words, *SMALL, *model)
    assert again.splitlines() == out.splitlines()[-3:]  # what is done is not done again, and measured alike
    one, two = run(capsys, "seq2seq", "write", "run", "abc", "ba", "max_new_tokens=4").splitlines()
    assert run(capsys, "seq2seq", "write", "run", "ba", "max_new_tokens=4").splitlines() == [two]
    assert len(one) <= 4
    assert "no classifier" in run(capsys, "classify", "label", "run", "abc", status=1)
    assert "shorten it" in run(capsys, "seq2seq", "write", "run", "a" * 300, status=2)


def test_labels_from_file_to_labelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether a word has an x in it."""
    monkeypatch.chdir(tmp_path)
    words = [pair.given for pair in reversals(0, 300, 6)]
    rows = [
        {"text": word + "x" * (i % 2), "label": "yes" if "x" in word + "x" * (i % 2) else "no"}
        for i, word in enumerate(words)
    ]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    train = ["classify", "train", "data.source=rows.jsonl", "run=run", "tokenizer=char", "train.max_steps=60"]
    out = run(capsys, *train, "optim.lr=0.01", "optim.warmup_steps=10", *SMALL)
    right, _, n_val = out.split("right on unseen texts: ")[1].split()[:3]
    assert int(right) >= 0.9 * int(n_val)
    first, second = run(capsys, "classify", "label", "run", "abxc", "abc").splitlines()
    assert (first.split()[0], second.split()[0]) == ("yes", "no")
    assert "no encoder-decoder" in run(capsys, "seq2seq", "write", "run", "abc", status=1)
    Path("rows.jsonl").write_text('{"text": "a", "label": "b"}', encoding="utf-8")
    assert "the only label" in run(capsys, "classify", "train", "data.source=rows.jsonl", "run=other", status=2)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    tokenizer = TokenizerConfig(kind=str(tmp_path / "tokenizer.json"))
    data = SourceTargetConfig(n_examples=20, val_fraction=0.5)
    with pytest.raises(ConfigError, match=r"has no special token <\|endoftext\|>"):
        fit_pairs(Seq2SeqRun(run=tmp_path / "run", data=data, tokenizer=tokenizer))


@pytest.mark.slow
def test_reversal_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documented command."""
    out = run(capsys, "seq2seq", "train", str(ROOT / "configs" / "reversal.yaml"), f"run={tmp_path}")
    right, _, n_val = out.split("greedy: ")[1].split()[:3]
    assert int(n_val) > 1500
    assert int(right) >= 0.99 * int(n_val)
    (word,) = run(capsys, "seq2seq", "write", str(tmp_path), "legollm").splitlines()
    assert word == "mllogel"
