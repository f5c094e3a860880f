"""A built model becomes a plan of kernel calls: the same bricks, read once, carried out at the speed of memory.

A model comes in, something that generates like it goes out, to generation as any other model. The readable model stays
the only one: a plan is written from it, and proven equal to it in the tests.

engine      which engine answers sooner: lowering_for
decoder     LoweredDecoder: tokens -> states -> logits, by running plans
blocks      what a whole decoder becomes
embeddings  what its embedding becomes
mixing      what attention becomes
thinking    what feed-forward layers become
table       what these share: the lookup of a brick's class
writer      rows of a plan, and the memory behind their addresses
weights     matrices in float32, bfloat16, int8 and int4
team        the threads
"""
