# %% [markdown]
# # From text to numbers
#
# A model knows no letters. It knows the numbers 0 to V - 1, and a tokenizer decides what each of them stands for.
# That choice costs: with too small pieces texts get long, with too large ones the vocabulary does, and with words
# there is always one that is missing.

# %%
from legollm.data import world
from legollm.errors import TokenizerError
from legollm.tokenizers import ByteTokenizer, CharTokenizer, NaiveBPETokenizer, RegexBPETokenizer, WordTokenizer

text = "\n".join(story.text for story in world.stories(0, 0, 400))
new = "\n".join(story.text for story in world.stories(0, 400, 440))
print(f"{len(text):,} characters to learn from; they begin: {text[:70]!r}")

# %% [markdown]
# ## Bytes, characters, words
#
# Bytes never fail: every text is made of 256 of them. Characters make texts shorter only where one takes several
# bytes. Words make them much shorter, until one comes that was not in the training text.

# %%
simple = {"bytes": ByteTokenizer(), "characters": CharTokenizer(), "words": WordTokenizer()}
simple["characters"].train(text)
simple["words"].train(text, vocab_size=2000)
for name, tokenizer in simple.items():
    ids = tokenizer.encode(new)
    print(f"{name:<12}{tokenizer.vocab_size:>6} ids known, the new text is {len(ids):>7,} of them long")

strange = "Mira met a hippogriff: ヒッポグリフ."
assert simple["bytes"].decode(simple["bytes"].encode(strange)) == strange
try:
    simple["characters"].encode(strange)
except TokenizerError as error:
    print("characters:", error)
else:
    raise AssertionError("there was no such character in the training text")
print("words:", simple["words"].decode(simple["words"].encode(strange)))
assert simple["words"].decode(simple["words"].encode(strange)) != strange

# %% [markdown]
# ## The idea of BPE
#
# Start with bytes. Find the pair of neighbours that occurs most often, give it a number of its own, and do that again
# (Sennrich et al. 2016, arXiv:1508.07909). Nothing is ever unknown, because the bytes stay; what is frequent gets
# short.

# %%
small = NaiveBPETokenizer()
small.train("low lower lowest newer newest wider widest " * 20, vocab_size=256 + 12)
for i, (left, right) in enumerate(small.merges):
    print(f"merge {i + 1:>2}: {left.decode()!r} + {right.decode()!r} -> {(left + right).decode()!r}")
print([small.vocab[i].decode() for i in small.encode("lowest widest slower")])

# %% [markdown]
# The first merges are pairs of letters, later ones whole syllables, at last words with the space behind them. A word
# that was not there, `slower`, falls into pieces that were.

# %%
assert len(small.encode("lowest")) < len(b"lowest")
assert small.decode(small.encode("slower, und ヒ")) == "slower, und ヒ"

# %% [markdown]
# ## How large?
#
# Each merge makes texts shorter and the model's embedding longer. Here is the exchange, on text that was not trained
# on.

# %%
n_bytes = len(new.encode())
rates = {}
for size in (256, 300, 400, 600, 1000):
    tokenizer = RegexBPETokenizer(pattern="gpt4")
    tokenizer.train(text, vocab_size=size)
    rates[size] = n_bytes / len(tokenizer.encode(new))
    print(f"{size:>5} ids  {rates[size]:>5.2f} bytes per token  {'#' * round(12 * rates[size])}")

assert list(rates.values()) == sorted(rates.values())
gains = [(rates[b] - rates[a]) / (b - a) for a, b in ((256, 400), (400, 1000))]
assert gains[1] < gains[0]

# %% [markdown]
# **What to notice.** The first merges pay most; later ones each shorten the text a little less. And a tokenizer
# carries its training text with it: what is short in one language is long in another.

# %%
for sentence in ("Mira put the key in the box.", "ミラは鍵を箱に入れた。"):
    print(f"{len(sentence):>3} characters, {len(tokenizer.encode(sentence)):>3} tokens  {sentence}")
assert len(tokenizer.encode("ミラは鍵を箱に入れた。")) > 2 * len("ミラは鍵を箱に入れた。")
