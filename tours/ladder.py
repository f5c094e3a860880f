# %% [markdown]
# # From counted pairs to a decoder
#
# How much does each idea bring? Here the first rungs of a ladder learn the same short text with the same budget: a
# table of counted pairs, the same table learned, a small network that sees two characters, and one attention head.

# %%
import contextlib
import io
import json
import math
import tempfile
from pathlib import Path

from legollm.cli import main
from legollm.commands.text_plot import plot

RUNGS = ["count-bigram", "bigram", "mlp", "one-head"]
folder = Path(tempfile.mkdtemp())
words = ["ladder", f"run={folder}", f"rungs=[{','.join(RUNGS)}]", "max_steps=150"]
words += ["data.source=world", "data.read.world_bytes=150000"]
with contextlib.redirect_stdout(io.StringIO()) as said:
    status = main(words)
assert status == 0
rungs = {row["rung"]: row for row in json.loads((folder / "results.json").read_text())["rungs"]}

# %% [markdown]
# ## What each of them comes to
#
# Nats per character on text that none of them has seen; whoever knows nothing pays the logarithm of the number of
# characters.

# %%
for name, row in rungs.items():
    print(f"{name:<14}{row['parameters']:>8,} weights  {row['val_loss']:.3f} nats  {row['val_bpb']:.3f} bits per byte")

assert all(row["val_loss"] < math.log(60) for row in rungs.values())

# %% [markdown]
# ## The same table, counted and learned
#
# `count-bigram` counts how often each character follows each other one. `bigram` starts with a random table and finds
# the same one by gradient descent, step by step: that is what training is, and here the answer is known.

# %%
levels = {"count-bigram": [(0, rungs["count-bigram"]["val_loss"]), (150, rungs["count-bigram"]["val_loss"])]}
curves = {name: [tuple(point) for point in rungs[name]["curve"]] for name in ("bigram", "mlp", "one-head")}
print("\n".join(plot(levels | curves, x_label="steps", height=12)))

gap = rungs["bigram"]["val_loss"] - rungs["count-bigram"]["val_loss"]
print(f"the learned table is {gap:.3f} nats from the counted one")
assert 0 <= gap < 0.3

# %% [markdown]
# ## More to look at
#
# No table of pairs can know more than pairs. The small network sees two characters, one attention head all of the row
# before. What has more to learn needs more steps: after these few the network still falls steeply and is behind the
# tables, while the head, which finds by itself where to look, has passed them.

# %%
start, end = (rungs["mlp"]["curve"][i][1] for i in (-4, -1))
print(f"mlp, in its last 45 steps: {start:.3f} -> {end:.3f}")
assert end < start - 0.05
assert rungs["one-head"]["val_loss"] < rungs["count-bigram"]["val_loss"]
for name in ("count-bigram", "one-head"):
    print(f"{name}: {rungs[name]['sample'][:100]!r}")

# %% [markdown]
# **What to notice.** A better idea is not better at once. `legollm ladder` climbs all eight rungs with 3,000 steps
# each, and there every rung is to beat the one before.
