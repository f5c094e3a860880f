"""One story per verb: the only place where all the rooms meet.

A verb is a function of a `Resolved` configuration. What several verbs share stands in three modules that are no verbs
themselves: material.py (text, tokenizer and batches), fit.py (a run folder around the training loop) and view.py (what
is on the screen meanwhile).
"""
