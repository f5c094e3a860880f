"""A built model becomes another one that computes the same, or nearly: functions on a model, never a second model.

recompute.py trades time for memory in training.
"""
