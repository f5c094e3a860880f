# %% [markdown]
# # Attention by hand
#
# A token knows itself. To understand "it" in a sentence, a model has to look back at what "it" may be. Attention does
# that: every token asks a question, every token offers a key and a value, and where question and key agree, the value
# is taken along (Vaswani et al. 2017, arXiv:1706.03762).

# %%
import math

import torch

from legollm.architectures import build
from legollm.components.attention import attend
from legollm.components.masks import Causal
from legollm.components.positions import RotaryEmbedding

torch.manual_seed(0)
words = ["Mira", "has", "the", "key", ".", "Who", "has", "the", "key", "?"]
n, d = len(words), 16


def picture(weights: torch.Tensor) -> None:
    """One row of shades for each token that looks: how much it takes from each token that it sees."""
    for word, row in zip(words, weights.tolist(), strict=True):
        print(f"{word:>5} |{''.join(' .:-=+*#%@'[min(9, int(10 * share))] * 2 for share in row)}|")


# %% [markdown]
# ## Scores, softmax, mean
#
# Queries and keys are vectors; their product is the score. Softmax makes shares of the scores, and the output is the
# mean of the values with these shares. Here the vectors of equal words are equal, so a word finds its earlier self.

# %%
vector = {word: torch.randn(d) for word in dict.fromkeys(words)}
x = torch.stack([vector[word] for word in words])
scores = x @ x.T / math.sqrt(d)
future = torch.ones(n, n, dtype=torch.bool).triu(1)
weights = scores.masked_fill(future, -torch.inf).softmax(-1)
picture(weights)

second_key = 8
assert words[second_key] == "key"
assert weights[second_key, 3] > 0.3  # the second "key" looks at the first
torch.testing.assert_close(weights.sum(-1), torch.ones(n))

# %% [markdown]
# The upper right is empty: a token that is to be predicted must not be seen. That is the whole difference between a
# decoder and an encoder. The library's `attend` computes the same, with any mask:

# %%
q = k = v = x.view(1, 1, n, d)
torch.testing.assert_close(attend(q, k, v, Causal())[0, 0], weights @ x)

# %% [markdown]
# ## Why divide by the root of d?
#
# A product of two random vectors grows with the root of their length. Without the division softmax would put nearly
# all on one token, and hardly any gradient would flow.

# %%
for width in (4, 64, 1024):
    a, b = torch.randn(200, width), torch.randn(200, width)
    raw, scaled = ((a @ b.T / by).softmax(-1).amax(-1).mean() for by in (1.0, math.sqrt(width)))
    print(f"d = {width:>5}: the largest share of 200 is {raw:.2f} without, {scaled:.2f} with the division")
assert raw > 0.8
assert scaled < 0.2

# %% [markdown]
# ## Order
#
# Products know no order: shuffle the tokens, and each gets the same as before. So positions have to be told. Rotary
# positions (Su et al. 2021, arXiv:2104.09864) turn queries and keys by an angle that grows with the position; what is
# left in a product is how far apart the two stand.

# %%
shuffle = torch.randperm(n)
plain = (scores.softmax(-1) @ x)[shuffle]
shuffled = (x[shuffle] @ x[shuffle].T / math.sqrt(d)).softmax(-1) @ x[shuffle]
torch.testing.assert_close(plain, shuffled)

rope = RotaryEmbedding(d, theta=10_000.0)
one, other = torch.randn(2, 1, 1, 1, d)


def product(position: int, distance: int) -> float:
    """Of a query at a position and a key so much before it."""
    turned, _ = rope(one, one, torch.tensor([position]))
    _, key = rope(other, other, torch.tensor([position - distance]))
    return float((turned * key).sum())


for distance in (0, 1, 8):
    print(f"{distance} apart: " + "  ".join(f"{product(position, distance):+.4f}" for position in (10, 50, 200)))
assert abs(product(10, 8) - product(200, 8)) < 1e-3
assert abs(product(10, 8) - product(10, 1)) > 1e-2

# %% [markdown]
# ## In a whole model
#
# A decoder is attention and feed-forward layers in turns. That it cannot look ahead is a property one can test:
# change the last token, and nothing before it moves.

# %%
model = build("llama3", vocab_size=50, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=32)
tokens = torch.randint(50, (1, 12))
changed = tokens.clone()
changed[0, -1] = (tokens[0, -1] + 1) % 50
with torch.no_grad():
    before, after = model(tokens), model(changed)
torch.testing.assert_close(before[:, :-1], after[:, :-1])
assert not torch.allclose(before[:, -1], after[:, -1])
print("logits of the first 11 tokens are the same, those of the last one are not")

# %% [markdown]
# `legollm inspect model MODEL` and its pages draw what the heads of a trained model look at. The code is
# `components/attention.py`: about as long as this tour.
