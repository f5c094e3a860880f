"""Generation: a model and a prompt come in, tokens or text go out, to the terminal, an evaluation or a rollout.

cache       what the model remembers of the tokens it has read: FullCache
block_pool  memory in blocks, lent and shared: numbers only
paged_cache texts in such blocks, that come and go and share what they have in common
ring_cache  one of constant size for texts without end: the newest tokens, and the first ones if wanted
sampling    from logits to the next token: Sampling holds the settings, next_token_probs is the distribution
generate    the one decode step, for rows that advance together
reader      a model whose rows are not equally far, and that can take back what it read
drafts      guesses at the next tokens: a smaller model, counts, what the prompt said
lookahead   how far guessing pays
speculative guesses checked in one pass, without a trace in what is written
beams       the likeliest answer as a whole
complete    many prompts of any length: batches, windows, and why each one ended
text        text in, text out: whole characters, stop strings, streaming
"""
