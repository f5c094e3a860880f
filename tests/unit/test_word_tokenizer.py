"""Words: the vocabulary is what counting says, and exactly the words outside it are unknown."""

import random
from collections import Counter

from legollm.tokenizers import WordTokenizer


def test_the_vocabulary_is_that_of_a_plain_count_however_the_text_is_cut_into_shards() -> None:
    rng = random.Random(1)
    sentences = [" ".join(rng.choices(["ab", "abc", "b", "ß", "日本", "it's"], k=9)) for _ in range(50)]
    counts = Counter(word for sentence in sentences for word in sentence.split())
    for min_freq, size in ((1, None), (1, 4), (80, None), (10**9, None)):
        kept = [word for word, count in counts.items() if count >= min_freq]
        expected = sorted(kept, key=lambda word: (-counts[word], word))[: None if size is None else size - 2]
        for _ in range(3):
            rng.shuffle(sentences)
            tokenizer = WordTokenizer(lossless=False)
            tokenizer.train(iter(sentences), vocab_size=size, special_tokens=["<|x|>"], min_freq=min_freq)
            assert [token.decode() for token in tokenizer.vocab.values()] == [
                "<unk> ",
                *(word + " " for word in expected),
                "<|x|>",
            ]


def test_exactly_the_words_that_training_lacked_are_unknown() -> None:
    rng = random.Random(2)
    known, new = ["cat", "the", "Größe"], ["dog", "Cat", "größe", "catt"]
    tokenizer = WordTokenizer()
    tokenizer.train(" ".join(known))
    for _ in range(50):
        words = rng.choices([*known, *new], k=12)
        assert [i == 0 for i in tokenizer.encode(" ".join(words))[::2]] == [word in new for word in words]
        assert tokenizer.oov_rate(" ".join(words)) == sum(word in new for word in words) / 12


def test_the_name_of_the_unknown_word_in_a_text_is_text() -> None:
    tokenizer = WordTokenizer()
    tokenizer.train("<unk> < unk >")
    assert 0 not in tokenizer.encode("<unk>")
    assert tokenizer.decode(tokenizer.encode("<unk>")) == "<unk>"
