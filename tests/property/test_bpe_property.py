"""The fast BPE against the obvious one, on texts nobody chose."""

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from legollm.tokenizers import ByteTokenizer, DecodeStream, NaiveBPETokenizer, RegexBPETokenizer
from legollm.tokenizers.apply_merges import apply_merges, merge_by_heap, merge_by_search, merge_in_rounds
from legollm.tokenizers.learn_merges import learn_merges
from legollm.tokenizers.patterns import PATTERNS, Splitter
from text_samples import BAG

any_text = st.text(st.characters())  # lone surrogates, too
few_letters = st.text("aab \n'9é", max_size=80)  # many repeated pairs and ties
pattern = st.sampled_from([*PATTERNS, r"a+|[\s\S]", r"[^b]+b?"])


@settings(deadline=None, max_examples=150)
@given(st.lists(few_letters | any_text, max_size=5), st.integers(0, 40), pattern)
def test_merges_and_ids_are_those_of_the_oracle(texts: list[str], n_merges: int, pattern: str) -> None:
    fast, naive = RegexBPETokenizer(pattern), NaiveBPETokenizer(pattern)
    for tokenizer in (fast, naive):
        tokenizer.train(texts, vocab_size=256 + n_merges)
    assert fast.merges == naive.merges
    assert fast.encode_batch([*texts, *BAG]) == naive.encode_batch([*texts, *BAG])


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.text("ab", min_size=1, max_size=30).map(str.encode), st.integers(1, 9), max_size=8))
def test_runs_of_equal_letters_are_counted_as_the_oracle_counts_them(counts: dict[bytes, int]) -> None:
    naive = NaiveBPETokenizer("[ab]+")
    naive.train((" " + piece.decode() for piece, count in counts.items() for _ in range(count)), vocab_size=290)
    assert learn_merges(counts | {b" ": 1}, 34) == naive.merges


@settings(deadline=None, max_examples=100)
@given(st.lists(few_letters, min_size=1, max_size=5), pattern)
def test_no_token_spans_two_pre_tokens(texts: list[str], pattern: str) -> None:
    tokenizer = RegexBPETokenizer(pattern)
    tokenizer.train(texts, vocab_size=320)
    pieces = {piece.encode() for text in texts for piece in Splitter(pattern).split(text)}
    for left, right in tokenizer.merges:
        assert any(left + right in piece for piece in pieces)


@settings(deadline=None, max_examples=100)
@given(st.lists(few_letters, max_size=4), st.integers(1, 30))
def test_each_merge_is_the_most_frequent_pair_left_and_the_greatest_among_equals(
    texts: list[str], n_merges: int
) -> None:
    counts = Counter(text.encode() for text in texts if text)
    merges = learn_merges(counts, n_merges)
    words = {piece: [bytes([value]) for value in piece] for piece in counts}
    for left, right in [*merges, (b"", b"")]:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for piece, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[piece]
        best = max(((count, pair) for pair, count in pairs.items()), default=(0, None))
        if not left:
            assert len(merges) == n_merges or best[0] < 2
            break
        assert best == (pairs[left, right], (left, right))
        for parts in words.values():
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == (left, right):
                    parts[i : i + 2] = [left + right]
                i += 1


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.integers(0, 2), max_size=60),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), unique=True, min_size=3, max_size=14),
    st.lists(st.integers(0, 6), max_size=14),
)
def test_search_heap_and_rounds_merge_alike(ids: list[int], pairs: list[tuple[int, int]], again: list[int]) -> None:
    """Whatever the table of merges is, honest or not: `again` makes tokens that another merge makes, too."""
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    products = [*again, *range(3, 3 + len(pairs))][: len(pairs)]
    expected = merge_by_search(ids.copy(), ranks, products)
    assert merge_by_heap(ids.copy(), ranks, products) == expected
    assert merge_in_rounds(ids.copy(), ranks, products) == expected


letters = st.text("ab", min_size=1, max_size=4)


@settings(deadline=None, max_examples=300)
@given(st.text("ab", max_size=200), st.lists(st.tuples(letters, letters), unique=True, max_size=20))
def test_rounds_merge_strings_as_the_search_does(word: str, merges: list[tuple[str, str]]) -> None:
    """Tokens that are strings, in any order of ranks, so that "a" + "bc" and "ab" + "c" are one token."""
    tokens = sorted({"a", "b", *(part for left, right in merges for part in (left, right, left + right))})
    ids = {token: i for i, token in enumerate(tokens)}
    ranks = {(ids[left], ids[right]): rank for rank, (left, right) in enumerate(merges)}
    products = [ids[left + right] for left, right in merges]
    start = [ids[letter] for letter in word]
    expected = merge_by_search(start.copy(), ranks, products)
    assert merge_in_rounds(start.copy(), ranks, products) == expected


def test_very_long_words_go_in_rounds_and_longer_than_any_step() -> None:
    ranks = {(97, 97): 0, (256, 256): 1, (257, 257): 2}
    assert apply_merges([97] * 1_000_003, ranks, [256, 257, 258]) == [258] * 125_000 + [256, 97]


@settings(deadline=None, max_examples=200)
@given(st.lists(any_text, min_size=1, max_size=3))
def test_any_text_comes_back(texts: list[str]) -> None:
    tokenizer = RegexBPETokenizer("gpt4")
    tokenizer.train(texts, vocab_size=280)
    for text in texts:
        whole = text.encode("utf-8", "surrogatepass")
        assert tokenizer.decode_bytes(tokenizer.encode(text)) == whole
        assert tokenizer.decode(tokenizer.encode(text)) == whole.decode("utf-8", "replace")


@given(st.binary(max_size=60))
def test_any_bytes_come_back_and_stream_as_they_decode(data: bytes) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode_bytes(data)
    assert tokenizer.decode_bytes(ids) == data
    stream = DecodeStream(tokenizer)
    assert "".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode(ids)


@given(st.text("<|ab>"), st.lists(st.sampled_from(["<|a|>", "<|a|>b", "<|b|>", "<|"]), unique=True))
def test_specials_and_text_between_them_come_back(text: str, names: list[str]) -> None:
    tokenizer = ByteTokenizer(names)
    ids = tokenizer.encode(text, allowed_special="all")
    assert tokenizer.decode(ids) == text
    plain = b"".join(b"\n" if i >= 256 else bytes([i]) for i in ids).decode()
    assert not any(name in plain for name in names)
    assert max(tokenizer.encode(text), default=0) < 256
