# %% [markdown]
# # Training, in one page
#
# A language model gives each possible next token a probability. Training makes the tokens that did come likelier: the
# loss is the mean of -ln p, in nats per token, and the gradient says how every weight has to move.

# %%
import math
from collections import Counter

import torch
import torch.nn.functional as F

from legollm.architectures import build
from legollm.commands.text_plot import plot
from legollm.data import world
from legollm.tokenizers import CharTokenizer

torch.manual_seed(0)
torch.set_num_threads(1)
text = "\n".join(f"{one.prompt} {one.answer}" for one in world.sums(0, 0, 3000, difficulty=1))
tokenizer = CharTokenizer()
tokenizer.train(text)
ids = torch.tensor(tokenizer.encode(text))
train, val = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
V = tokenizer.vocab_size
print(f"{len(ids):,} characters of {V} kinds; they begin:\n{text[:60]}")

# %% [markdown]
# ## What is there to beat?
#
# Whoever knows nothing pays ln V. Whoever has counted the characters pays their entropy; whoever looks at the one
# before pays less. These are the lines to compare a curve with.

# %%
counts, pairs = Counter(train.tolist()), Counter(zip(train[:-1].tolist(), train[1:].tolist(), strict=True))
single = -sum(c / len(train) * math.log(c / len(train)) for c in counts.values())
double = -sum(c / len(train) * math.log(c / counts[a]) for (a, _), c in pairs.items())
print(f"nothing known {math.log(V):.2f}, characters counted {single:.2f}, pairs counted {double:.2f} nats")
assert math.log(V) > single > double

# %% [markdown]
# ## The loop
#
# A batch of windows, the loss, the gradient, a step. That is all; the loop of the package adds what a long run needs
# (resuming, logs, clipping, several processes) and nothing else.

# %%
model = build("llama3", vocab_size=V, n_layers=1, d_model=48, n_heads=4, n_kv_heads=2, d_ff=96, max_seq_len=48)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))


def batch_of(source: torch.Tensor, n_rows: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows from anywhere in the text, and the same shifted by one: what comes next."""
    starts = torch.randint(len(source) - 49, (n_rows,)).tolist()
    rows = torch.stack([source[i : i + 49] for i in starts])
    return rows[:, :-1], rows[:, 1:]


def loss_of(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


first = float(loss_of(*batch_of(val)).detach())
print(f"before training: {first:.2f} nats, guessing costs {math.log(V):.2f}")
assert abs(first - math.log(V)) < 0.3

# %%
curve, n_steps = [], 150
for step in range(n_steps):
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 * min(1, (step + 1) / 10) * (1 - step / n_steps)
    loss = loss_of(*batch_of(train))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    curve.append((step, float(loss.detach())))

levels = {"characters counted": [(0, single), (n_steps, single)], "pairs counted": [(0, double), (n_steps, double)]}
print("\n".join(plot({"loss": curve} | levels, x_label="steps", height=12)))
with torch.no_grad():
    final = sum(float(loss_of(*batch_of(val))) for _ in range(5)) / 5
print(f"on text it has not seen: {final:.2f} nats")
assert final < double < first

# %% [markdown]
# **What to notice.** The curve falls through both lines: first the model learns which characters there are, then
# which follow which, then what no table of pairs can know. It began at ln V; a curve that begins higher has a bug in
# its first weights, one that begins lower sees its targets.
#
# ## A test that every training code should pass
#
# A model that cannot learn one batch by heart cannot learn anything. If this fails, look for a wrong shift, a mask, a
# gradient that is not there.

# %%
one = batch_of(train, n_rows=2)
for group in optimizer.param_groups:
    group["lr"] = 1e-2
for _ in range(80):
    loss = loss_of(*one)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
print(f"one batch, again and again: {float(loss.detach()):.3f} nats")
assert float(loss.detach()) < 0.3

# %% [markdown]
# `legollm train data.source=FILE` does the same with everything around it; see
# [docs/training.md](../docs/training.md).
