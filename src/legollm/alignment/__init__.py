"""Answers that something judged -> a model that gives better ones: the one loop again, with other batches.

Of two answers one is preferred:
pairs        two answers to one prompt as ids
preferences  what is minimised over them: DPO, IPO, KTO, ORPO, SimPO
reference    what the model at the start thought of them, computed once
drift        how far a tuned model went from there
reward       a model that scores answers, learned from pairs (Bradley-Terry)

A program judges each answer:
advantages   how much better an answer was than expected: GRPO, Dr. GRPO, RLOO, REINFORCE, generalised advantages
kinds        the algorithms by name, as rows of choices
policy       what is minimised: clipped ratios, a penalty for leaving the reference, entropy, the loss of values
plan         how answers are drawn, how many make a rollout, in which pieces it is served
samples      answers with the probabilities they were drawn with
rollouts     a source of batches that has the model answer, has the answers judged, and serves them

Nothing is trained, or the judge is:
feedback     answers that are checked before they count: tried again with the reason, the best of several, a vote
judges       models as verifiers: trained to tell right from wrong, or asked about themselves
steps        the same for every line of an answer, so that the wrong one is found
"""
