# %% [markdown]
# # From probabilities to text, and texts without end
#
# A model gives probabilities for the next token. Decoding chooses one, puts it behind the text, and asks again. Two
# questions follow: how to choose, and how not to read everything again each time.

# %%
import torch

from legollm.architectures import build
from legollm.components.places import places_of
from legollm.generation.cache import FullCache
from legollm.generation.generate import generate
from legollm.generation.ring_cache import RingCache
from legollm.generation.sampling import Sampling, next_token_probs

torch.manual_seed(0)
words = ["box", "mill", "lamp", "sea", "moon", "fork"]
logits = torch.tensor([[3.0, 2.2, 1.5, 0.5, -0.5, -2.0]])


def show(name: str, probs: torch.Tensor) -> None:
    print(f"{name:<18}" + "  ".join(f"{word} {float(p):.2f}" for word, p in zip(words, probs[0], strict=True)))


# %% [markdown]
# ## How to choose
#
# Temperature divides the logits: below 1 what is likely gets likelier, at 0 only the best is left. `top_k` keeps the
# k best; `top_p` the best that together have so much probability (Holtzman et al. 2019, arXiv:1904.09751): few where
# the model is sure, many where it is not.

# %%
settings = {
    "temperature 1": Sampling(temperature=1.0),
    "temperature 0.5": Sampling(temperature=0.5),
    "temperature 2": Sampling(temperature=2.0),
    "greedy": Sampling(temperature=0.0),
    "top_k 2": Sampling(temperature=1.0, top_k=2),
    "top_p 0.8": Sampling(temperature=1.0, top_p=0.8),
}
probs = {name: next_token_probs(logits, sampling) for name, sampling in settings.items()}
for name, found in probs.items():
    show(name, found)
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))

assert probs["temperature 0.5"][0, 0] > probs["temperature 1"][0, 0] > probs["temperature 2"][0, 0]
assert (probs["top_k 2"] > 0).sum() == 2
kept = probs["top_p 0.8"] > 0
assert probs["temperature 1"][kept].sum() >= 0.8

# %% [markdown]
# ## What was read is kept
#
# Keys and values of a token do not change when others follow. A cache keeps them, and each step reads one token
# instead of all. It is no approximation: the tokens are the same.

# %%
sizes = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_kv_heads": 2, "d_ff": 64, "max_seq_len": 256}
model = build("llama3", vocab_size=60, **sizes).eval()
prompt = torch.randint(60, (1, 8))
greedy = Sampling(temperature=0.0, max_new_tokens=24)


def written(cache: FullCache | RingCache | None, sampling: Sampling) -> list[int]:
    return [int(token) for token in generate(model, prompt, sampling, cache=cache)]


again = written(None, greedy)
cached = written(FullCache(model.kv_shapes, 1, 64), greedy)
print("read again each time:", again[:12])
print("with a cache:        ", cached[:12])
assert again == cached

# %% [markdown]
# ## Texts without end
#
# A cache grows with the text, and a model has seen no text longer than its window. Keeping only the newest tokens
# bounds both, but a trained model breaks when the very first tokens go: heads that look for nothing rest on them. So
# keep a few of the first ones, the *sinks* (Xiao et al. 2023, arXiv:2309.17453). Positions count inside the cache.

# %%
single = build("llama3", vocab_size=60, **sizes | {"n_layers": 1}).eval()
window, n_sinks = 16, 4
ring = RingCache(single.kv_shapes, 1, window, places=places_of(single), n_sinks=n_sinks)
text = torch.randint(60, (1, 200))
with torch.no_grad():
    for token in text[0]:
        last = single(token.view(1, 1), cache=ring)[0, -1]
    seen = torch.cat([text[:, :n_sinks], text[:, -(window - n_sinks) :]], 1)
    anew = single(seen)[0, -1]
print(f"after {text.size(1)} tokens it sees {seen.size(1)}: the first {n_sinks} and the newest {window - n_sinks}")
torch.testing.assert_close(last, anew, rtol=1e-4, atol=1e-5)


def n_bytes(cache: FullCache | RingCache) -> int:
    """What keys and values take."""
    tensors = [part for layer in cache.layers for part in (layer.k, layer.v)]
    return sum(part.numel() * part.element_size() for part in tensors)


for n in (64, 1024, 16384):
    full, constant = (n_bytes(cache) for cache in (FullCache(single.kv_shapes, 1, n), ring))
    print(f"{n:>6} tokens: {full:>9,} bytes with a full cache, {constant:,} with sinks")
assert constant < full / 100

# %% [markdown]
# **What to notice.** What the model sees is exactly what it would see if only these tokens were there, at places 0 to
# 15; memory and time for each token stay the same for ever. What is forgotten is forgotten: nothing in between can be
# asked about. `legollm demo sinks` trains a model and shows what happens without the first tokens;
# [docs/streams.md](../docs/streams.md) has the figures.
