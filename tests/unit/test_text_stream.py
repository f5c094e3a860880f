"""Text as it is generated: what a model with a script says, character by character and stop by stop."""

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from legollm.architectures import build
from legollm.errors import ContextError
from legollm.generation import complete as complete_module
from legollm.generation.cache import FullCache
from legollm.generation.complete import DEFAULT_DECODING, Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import Before, TextCompletion, TextStream, generate_text, generate_texts, stream_text
from legollm.interfaces import Cache
from legollm.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer(["<|endoftext|>"])
END = 256
GREEDY = Sampling(temperature=0, max_new_tokens=1000)
TEXTS = ["plain", "naïve café", "日本語の文", "👩‍👩‍👧‍👦 🇨🇭 e\u0301", "\x00\r\n\t", "a😀b漢c"]


class Scripted(nn.Module):
    """Says the bytes of its script, whatever it is asked: the token at position p is the script's."""

    kv_shapes: Sequence[tuple[int, int]] = ((1, 4),)
    lm_head = nn.Identity()

    def __init__(self, script: str | Sequence[int], max_seq_len: int | None = None) -> None:
        super().__init__()
        ids = TOKENIZER.encode(script) if isinstance(script, str) else list(script)
        self.script = torch.tensor([*ids, END])
        self.weight = nn.Parameter(torch.zeros(1))
        self.max_seq_len = max_seq_len

    def hidden(self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        if cache is None:
            places = torch.arange(tokens.size(1))
        else:
            places, _ = cache.place(tokens.size(1), positions)
            cache.advance(tokens.size(1))
        says = self.script[places.clamp(0, len(self.script) - 1)].expand(tokens.shape)
        return nn.functional.one_hot(says, 257).double()

    forward = hidden


def stream(
    script: str | Sequence[int], sampling: Sampling = GREEDY, decoding: Decoding = DEFAULT_DECODING
) -> TextStream:
    return stream_text(Scripted(script), TOKENIZER, "?", sampling, stop_ids=[END], decoding=decoding)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_make_up_the_text(text: str) -> None:
    answer = stream(text)
    pieces = list(answer)
    assert pieces == list(text), "with a token per byte, a piece per character"
    assert "\ufffd" not in "".join(pieces)
    assert (answer.finish_reason, answer.ids) == ("stop", TOKENIZER.encode(text))


@pytest.mark.parametrize("n", range(1, 13))
def test_a_character_that_max_new_tokens_cuts_is_left_out(n: int) -> None:
    text = "漢字😀!"
    answer = stream(text, replace(GREEDY, max_new_tokens=n))
    assert "".join(answer) == text.encode()[:n].decode(errors="ignore")
    assert answer.finish_reason == ("length" if n < 12 else "stop")
    assert len(answer.ids) == min(n, 11)


def test_bytes_that_are_no_text_are_replaced_and_do_not_stop_the_stream() -> None:
    assert "".join(stream([0xE6, *b"ok", 0xFF, *b"!"])) == "\ufffdok\ufffd!"


@pytest.mark.parametrize(
    ("script", "stop", "text"),
    [
        ("one. two. three", (". ",), "one"),
        ("答えは。次", ("。",), "答えは"),
        ("abababac...", ("abac",), "abab"),
        ("aaab", ("aab",), "a"),
        ("User: hi\nUser: ho", ("\nUser:", "\nSystem:"), "User: hi"),
        ("abcd", ("abcd", "bc"), "a"),
        ("abcd", ("cd", "bcd"), "a"),
        ("stop", ("stop",), ""),
    ],
)
def test_a_stop_text_ends_the_answer_and_no_part_of_it_is_seen(script: str, stop: tuple[str, ...], text: str) -> None:
    answer = stream(script, replace(GREEDY, stop=stop))
    assert "".join(answer) == text
    assert answer.finish_reason == "stop"
    assert TOKENIZER.decode(answer.ids).endswith(stop)


def test_what_looked_like_a_stop_text_is_said_as_soon_as_it_is_none() -> None:
    assert list(stream("a##b#", replace(GREEDY, stop=("###",)))) == ["a", "##b", "#"]


def test_a_stop_text_met_by_the_last_token_is_the_reason() -> None:
    answer = stream("ab.c", replace(GREEDY, stop=(".",), max_new_tokens=3))
    assert ("".join(answer), answer.finish_reason) == ("ab", "stop")
    answer = stream("ab.c", replace(GREEDY, stop=(".c.",), max_new_tokens=3))
    assert ("".join(answer), answer.finish_reason) == ("ab.", "length")


def test_a_full_window_is_the_reason() -> None:
    answer = stream_text(Scripted("abcdef", max_seq_len=4), TOKENIZER, "??", GREEDY)
    assert ("".join(answer), answer.finish_reason) == ("bcd", "context")
    assert "".join(stream("abcdef", decoding=Decoding(window=4))) == "abcd"


def test_a_special_token_in_the_prompt_is_plain_text() -> None:
    n = len("<|endoftext|>")
    completion = generate_text(Scripted("x" * (n - 1) + "yes"), TOKENIZER, "<|endoftext|>", GREEDY, stop_ids=[END])
    assert completion.text == "yes"
    assert generate_text(Scripted("yes"), TOKENIZER, [END], GREEDY, stop_ids=[END]).text == "yes"


def test_wrong_prompts_are_refused_before_anything_is_asked_for() -> None:
    with pytest.raises(ContextError, match="prompt 0 is empty"):
        stream_text(Scripted("a"), TOKENIZER, "", GREEDY)
    with pytest.raises(ContextError, match="5 tokens, the window holds 4"):
        stream_text(Scripted("a", max_seq_len=4), TOKENIZER, "12345", GREEDY)


def test_closing_a_stream_frees_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[weakref.ref[FullCache]] = []

    class Watched(FullCache):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            caches.append(weakref.ref(self))

    monkeypatch.setattr(complete_module, "FullCache", Watched)
    gc.disable()
    try:
        closed, dropped = stream("abc"), stream("abc")
        assert next(closed) == next(dropped) == "a"
        assert [ref() is None for ref in caches] == [False, False]
        closed.close()
        assert caches[0]() is None
        del dropped
        assert caches[1]() is None
    finally:
        gc.enable()
    assert list(closed) == []
    assert (closed.finish_reason, closed.ids) == (None, [ord("a")])


def test_many_texts_are_what_each_stream_says() -> None:
    model = build("llama3", vocab_size=257, n_layers=1, d_model=32, n_heads=2, max_seq_len=64).double().eval()
    for weight in model.parameters():
        weight.data.mul_(3)
    prompts: list[str | list[int]] = ["one", "a longer prompt", [END, 7], "日本"]
    sampling = Sampling(max_new_tokens=40, seed=5, stop=("e", "\x10\x11"), stop_ids=(3,), temperature=1.2)
    together = generate_texts(model, TOKENIZER, prompts, sampling, decoding=Decoding(batch_size=3))
    for i, (prompt, completion) in enumerate(zip(prompts, together, strict=True)):
        alone = stream_text(model, TOKENIZER, prompt, replace(sampling, seed=5 + i))
        text = "".join(alone)
        assert isinstance(completion, TextCompletion)
        assert (completion.text, completion.ids, completion.finish_reason) == (text, alone.ids, alone.finish_reason)
        assert not any(stop in text for stop in sampling.stop)


def test_rows_of_the_head_that_no_text_stands_behind_are_never_chosen() -> None:
    """A vocabulary rounded up for speed; the first samples of such a run once ended it."""
    model = build("llama3", vocab_size=600, n_layers=1, d_model=32, n_heads=2, max_seq_len=64).eval()
    prompts: list[str | list[int]] = ["one", [599, 7]]  # in a prompt they may stand
    for sampling in (Sampling(), Sampling(temperature=0, repetition_penalty=1.1), Sampling(top_k=300, top_p=0.9)):
        sampling = replace(sampling, max_new_tokens=60)
        for i, said in enumerate(generate_texts(model, TOKENIZER, prompts, sampling)):
            assert max(said.ids) < TOKENIZER.vocab_size
            alone = stream_text(model, TOKENIZER, prompts[i], replace(sampling, seed=i))
            assert ("".join(alone), alone.ids) == (said.text, said.ids)


def before_each_character(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The definition: read on until the text ends with a stop text; of several, the longest is cut off."""
    for n in range(len(text) + 1):
        if met := [s for s in stop if text[:n].endswith(s)]:
            return text[: n - max(map(len, met))], True
    return text, False


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.text("ab.", max_size=4), max_size=8),
    stop=st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3),
)
def test_stop_texts_are_found_however_the_text_is_cut(pieces: list[str], stop: list[str]) -> None:
    before, out = Before(stop), ""
    text, met = before_each_character("".join(pieces), stop)
    for piece in pieces:
        out += before.push(piece)
        assert text.startswith(out), "never more than what stays"
        if before.met:
            break
    else:
        out += before.flush()
    assert (out, before.met) == (text, met)
