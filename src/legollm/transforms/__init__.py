"""A built model becomes another one that computes the same, or nearly: functions on a model, never a second model.

recompute.py trades time for memory in training, compiled.py memory for time; quantize.py makes weights of 8 or 4 bits
(gptq.py and awq.py, with what calibration.py saw).
"""
