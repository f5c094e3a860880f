"""A base model goes in, one that answers comes out: masked targets for the same training loop (sft.py)."""
