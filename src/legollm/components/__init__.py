"""The bricks: (B, T) token ids and positions go in, (B, T, D) states flow through, logits come out of a Decoder.

Reading order: masks, norm, positions, attention, feedforward, routing, moe, blocks, decoder, init; then tiled,
block_sparse and flex (other ways to compute attention), encoder, cross_attention, encoder_decoder; and quantized,
which takes the place of linear maps in a built model. A brick has no
architecture flags: an optional part is passed in or absent, another behaviour is another class. The recipes in
legollm.architectures put bricks together, and legollm.eject copies them into one file, which is why modules here hold
only imports of names and top-level definitions, and import only modules earlier in that order.

| slot      | what can go there                                                                       |
| --------- | --------------------------------------------------------------------------------------- |
| embedding | TokenEmbedding, ScaledTokenEmbedding, TokenAndPositionEmbedding                         |
| positions | added: LearnedPositionEmbedding, SinusoidalPositionEmbedding; rotated: RotaryEmbedding, |
|           | InterleavedRotaryEmbedding, NoPositions; in the scores: Alibi, T5Bias                   |
| mask      | Causal, Ragged, Near, Documents, Prefix, Everything, BlockSparse                        |
| norm      | LayerNorm, RMSNorm                                                                      |
| attention | Attention (multi-head, grouped-query, multi-query), CrossAttention                      |
| ffn       | MLP, GLU, SwiGLU, GeGLU, ReGLU; MoE of any of them                                      |
| routing   | Switch, TopK, Soft, StraightThrough, SigmoidTopK, as the rule of a Router               |
| block     | PreNormBlock, PostNormBlock, SandwichNormBlock, ParallelBlock                           |
"""
