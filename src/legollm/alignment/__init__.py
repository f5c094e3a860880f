"""Answers that something can judge -> a model that gives better ones: the one loop again, with other batches.

advantages  how much better an answer was than expected: GRPO, Dr. GRPO, RLOO, REINFORCE, generalised advantages
kinds       the algorithms by name, as rows of choices
policy      what is minimised: clipped ratios, a penalty for leaving the reference, entropy, the loss of values
samples     answers with the probabilities they were drawn with
rollouts    a source of batches that has the model answer, has the answers judged, and serves them
"""
