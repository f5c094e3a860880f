"""Batches go in, weights come out: `train` is the only loop.

objective.py says what is minimised, optim.py how a gradient becomes a step, schedule.py how large a step, metrics.py
where the numbers go. Pretraining, fine-tuning and alignment differ in the objective and in the source of batches.
"""
