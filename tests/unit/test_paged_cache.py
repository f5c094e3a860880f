"""Blocks of memory for texts that come, grow, split and go, against texts that are kept whole."""

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from legollm.errors import ContextError
from legollm.generation.block_pool import BlockPool
from legollm.generation.complete import Decoding, complete
from legollm.generation.generate import left_padded
from legollm.generation.paged_cache import PagedCache, Text
from legollm.generation.sampling import Sampling
from tiny_models import some_tokens, tiny_model


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


# ---- the pool -----------------------------------------------------------------------------------------------------


def test_a_block_is_lent_shared_and_given_back() -> None:
    pool = BlockPool(2)
    a, b = pool.take(), pool.take()
    with pytest.raises(ContextError, match="all 2 blocks of 16 tokens are in use"):
        pool.take()
    pool.share(a)
    pool.give_back(a)
    assert pool.n_free == 0
    pool.give_back(a)
    pool.give_back(b)
    assert pool.n_free == 2


def test_the_longest_unused_block_is_evicted_first_and_its_name_with_it() -> None:
    pool = BlockPool(3, block_size=2)
    blocks = [pool.take() for _ in range(3)]
    serials = [pool.name(block, (0, (i, i))) for i, block in enumerate(blocks)]
    assert len(set(serials)) == 3
    for i in (1, 0, 2):
        pool.give_back(blocks[i])
    found = pool.find((0, (1, 1)))  # used again, and therefore not evicted
    assert found is not None
    assert found.block == blocks[1]
    assert [pool.take(), pool.take()] == [blocks[0], blocks[2]]
    assert pool.find((0, (0, 0))) is None
    assert pool.find((0, (2, 2))) is None
    assert (pool.n_asked, pool.n_found, pool.n_evicted) == (3, 1, 2)


def test_a_serial_does_not_come_to_mean_something_else() -> None:
    """The block after an evicted one must not be found behind what took its place."""
    pool = BlockPool(2, block_size=1)
    first, second = pool.take(), pool.take()
    old = pool.name(first, (0, (7,)))
    pool.name(second, (old, (8,)))
    pool.give_back(first)
    assert pool.take() == first
    new = pool.name(first, (0, (7,)))
    assert new != old
    assert pool.find((new, (8,))) is None


# ---- texts --------------------------------------------------------------------------------------------------------


def read(model: Any, cache: PagedCache, texts: list[Text], tokens: Tensor) -> Tensor:
    cache.start(texts)
    logits: Tensor = model(tokens, cache=cache)
    return logits


@torch.inference_mode()
def test_texts_that_begin_alike_share_what_was_read() -> None:
    model = tiny_model("llama3", dtype=torch.float64)
    cache = PagedCache(model.kv_shapes, 12, 4, dtype=torch.float64)
    start, ends = some_tokens(11).tolist(), some_tokens(3, 5, seed=1).tolist()
    texts = []
    for i, end in enumerate(ends):
        text = cache.open(start + end)
        n_known = text.length
        assert n_known == (8 if i else 0)
        logits = read(model, cache, [text], torch.tensor([text.ids[n_known:]]))
        close(logits[0], model(torch.tensor([text.ids]))[0, n_known:])
        texts.append(text)
    assert texts[0].blocks[:2] == texts[1].blocks[:2] == texts[2].blocks[:2]
    usage = cache.usage()
    assert usage.reused == 16 / 48
    assert usage.waste == 0
    assert usage.contiguous_waste == 0
    for text in texts:
        cache.close(text)
    assert cache.pool.n_free == 12
    again = cache.open(start + ends[0])
    assert again.length == 12, "found although nobody uses it, but one token is left to read"


@torch.inference_mode()
def test_a_fork_writes_to_blocks_of_its_own() -> None:
    model = tiny_model("vanilla", dtype=torch.float64, positions="rope", ngram_rows=(31, 17))
    cache = PagedCache(model.kv_shapes, 12, 4, dtype=torch.float64)
    prompt, ends = some_tokens(1, 6), some_tokens(2, 7, seed=1)
    text = cache.open(prompt[0].tolist())
    read(model, cache, [text], prompt)
    twin = cache.fork(text)
    assert twin.blocks == text.blocks
    logits = read(model, cache, [text, twin], ends)
    close(logits, model(torch.cat([prompt.expand(2, -1), ends], 1))[:, 6:])
    assert twin.blocks[0] == text.blocks[0]
    assert twin.blocks[1] != text.blocks[1]


OPERATIONS = ("open", "read", "read", "read", "fork", "shorten", "close")


@pytest.mark.parametrize("seed", range(6))
@torch.inference_mode()
def test_any_history_is_what_each_text_is_alone(seed: int) -> None:
    """Random operations, each compared with the text read from its start; at the end all blocks are free again."""
    rng = random.Random(seed)
    model = tiny_model("qwen3", dtype=torch.float64, n_layers=1, n_heads=2, n_kv_heads=1)
    cache = PagedCache(model.kv_shapes, 40, 3, dtype=torch.float64)
    known: dict[Text, list[int]] = {}  # what each text has read
    for _ in range(60):
        do = rng.choice(OPERATIONS)
        if do == "open" and len(known) < 5:
            ids = [rng.randrange(2) for _ in range(rng.randrange(1, 12))]  # few different ones: many begin alike
            text = cache.open(ids)
            known[text] = ids[: text.length]
        elif do == "read" and known:
            texts = rng.sample(sorted(known, key=id), rng.randrange(1, len(known) + 1))
            texts = [text for text in texts if len(known[text]) < 18]
            new = [text.ids[text.length :][:5] or [rng.randrange(2)] for text in texts]
            if not texts:
                continue
            for text, ids in zip(texts, new, strict=True):
                known[text] = known[text] + ids
                text.ids[text.length :] = known[text][text.length :] + text.ids[len(known[text]) :]
            cache.start(texts)
            logits = model(*left_padded(new), cache)
            for row, (text, ids) in enumerate(zip(texts, new, strict=True)):
                close(logits[row, -len(ids) :], model(torch.tensor([known[text]]))[0, -len(ids) :])
        elif do == "fork" and 0 < len(known) < 5:
            text = rng.choice(sorted(known, key=id))
            known[cache.fork(text)] = list(known[text])
        elif do == "shorten" and known:
            text = rng.choice(sorted(known, key=id))
            length = rng.randrange(len(known[text]) + 1)
            cache.shorten(text, length)
            del known[text][length:], text.ids[length:]
            text.ids.append(rng.randrange(2))
        elif do == "close" and known:
            text = rng.choice(sorted(known, key=id))
            cache.close(text)
            del known[text]
        assert all(text.length == len(ids) for text, ids in known.items())
        used = {block for text in known for block in text.blocks}
        assert cache.pool.n_free == 40 - len(used)
    for text in known:
        cache.close(text)
    assert cache.pool.n_free == 40
    assert sum(cache.pool.n_users) == 0


def test_many_prompts_are_continued_as_with_the_full_cache() -> None:
    model = tiny_model("llama3", dtype=torch.float64)
    start = some_tokens(20).tolist()
    prompts = [start + some_tokens(n, seed=n).tolist() for n in (3, 9, 1, 40, 5)] + [[4], start]
    sampling = Sampling(temperature=1.2, max_new_tokens=20, seed=3)
    for batch_size in (1, 3, 8):
        for changes in ({}, {"window": 24, "on_overflow": "re-prefill"}):
            full = Decoding(batch_size=batch_size, **changes)  # type: ignore[arg-type]
            paged = replace(full, cache="paged")
            assert complete(model, prompts, sampling, decoding=paged) == complete(
                model, prompts, sampling, decoding=full
            )


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("bigram", "gpt2", "llama3", "mixtral")},
    "local layers": ("qwen3", {"local_layers": (0,), "window": 3, "d_head": 20}),
    "alibi": ("vanilla", {"positions": "alibi", "window": 5}),
    "t5, sinks": ("vanilla", {"positions": "t5", "sinks": True, "n_kv_heads": 2}),
    "n-grams": ("vanilla", {"ngram_rows": (31, 17)}),
}


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_kernels_read_blocks(case: str) -> None:
    pytest.importorskip("numba")
    from legollm.lowering.decoder import LoweredDecoder

    name, changes = CASES[case]
    model = tiny_model(name, **changes)
    lowered = LoweredDecoder(model)
    tokens = some_tokens(2, 30)
    wanted = model(tokens)
    for block_size, cuts in ((16, (0, 30)), (3, (0, 7, 8, 20, 30)), (4, range(31))):
        cache = PagedCache.for_model(lowered, 2, 30, block_size)
        cache.pool.fresh.sort(key=lambda block: (block % 3, block))  # some are neighbours, some are not
        found = torch.cat([lowered(tokens[:, a:b], cache=cache) for a, b in pairwise(cuts)], 1)
        assert (found - wanted).norm() / wanted.norm() < 3e-6
    texts = [some_tokens(n, seed=n).tolist() for n in (3, 11, 6)]
    cache = PagedCache.for_model(lowered, 3, 20, 4)
    following = some_tokens(4, 3, 1, seed=9)
    found = torch.cat(
        [lowered(*left_padded(texts), cache)[:, -1:], *(lowered(new, cache=cache) for new in following)], 1
    )
    for row, text in enumerate(texts):
        alone = model(torch.tensor([text + following[:, row, 0].tolist()]))[0, len(text) - 1 :]
        assert (found[row] - alone).norm() / alone.norm() < 3e-6
