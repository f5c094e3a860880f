"""The words of a plan: what a row of whole numbers tells the kernels to do. No numba here: who writes plans needs none.

A plan is a table of int64 whose rows are steps, carried out by steps.py one after the other. A step works on all rows
of states. Addresses and what ends in _BYTES are in bytes; offsets, strides and widths count numbers. Fields that a
step does not need are 0; floats are there as the bits of a float32.
"""

GATHER, PREPARE, LINEAR, STORE, ATTEND, ROUTE, EXPERTS = range(7)
"""Kinds of steps.

GATHER   out[row] (+)= FACTOR * table[INDEX[row]]
PREPARE  out[row] (+)= activation(norm(in[row])), times in[row][GATE:] if there is a gate, as products of FORMAT read it
LINEAR   out[row] (+)= weight @ in[row] + bias
STORE    keys and values in in[row], normalised and turned, go to memory; queries are normalised and turned in place
ATTEND   out[row] = attention of the queries in in[row] over memory
ROUTE    the scores of experts in in[row] become a choice of N_ACTIVE of them, and their weights
EXPERTS  the matrix of each expert that works on a row: out[row * N_ACTIVE + choice] = weight @ in[row]. With ADD the
         other way: out[row] += the sum over choices of their weights times weight @ in[row * N_ACTIVE + choice].
         WEIGHT and SCALES are tables with an address for each expert
"""

FLOAT32, BFLOAT16, INT8, INT4, PLAIN = range(5)
"""How weights lie, and what states look like that they are multiplied with; see products.py. PLAIN are states of
float32 with nothing behind them, which no product reads."""

NO_NORM, RMS, LAYER = range(3)
"""What happens to a vector before anything else."""

NO_ACTIVATION, RELU, RELU_SQUARED, SIGMOID, SILU, GELU, GELU_TANH = range(7)

NOT_TURNED, HALVES, NEIGHBOURS = range(3)
"""Which channels rotary positions turn together: none, i and i + R/2, or 2i and 2i + 1."""

SHARES, SHARES_OF_CHOSEN, BEST, SIGMOIDS = range(4)
"""Rules of routing: weights are shares of a softmax over all experts; of one over the chosen; 1; or sigmoids that are
chosen with a BIAS and scaled to sum to FACTOR."""

# The fields of a row.
(
    KIND,
    PARTS,  # how many rows from here on are done side by side; the others of them are LINEAR, too
    IN,
    IN_STRIDE,  # of LINEAR in bytes
    OUT,
    OUT_STRIDE,  # of PREPARE in bytes
    ADD,  # 1: add to what is there
    FORMAT,
    WIDTH,  # numbers of a row of `in`; of GATHER of `out`
    WEIGHT,  # of GATHER the table
    WEIGHT_BYTES,  # from one row to the next; of int4 from one panel of 16 rows to the next
    SCALES,  # of int8 one float32 for each row
    FACTOR,
    INDEX,  # which of the indices of a row
    NORM,
    NORM_WEIGHT,
    NORM_BIAS,
    EPS,
    ACTIVATION,
    GATE,
    BIAS,
    ROWS,  # outputs
    CHUNK,  # outputs that one thread computes at a time
    N_HEADS,
    N_KV_HEADS,
    D_HEAD,
    LAYER_INDEX,
    K_NORM_WEIGHT,
    K_NORM_BIAS,
    TURN,
    D_ROTARY,
    TURNS,  # of each position R cosines, then R sines that have the sign of their place
    SCALE,
    WINDOW,  # the nearest keys that are seen; 0 is all
    SINKS,  # a logit for each head
    DISTANCES,  # what is added to the scores: for each head one number for each distance
    N_DISTANCES,
    N_ACTIVE,  # experts that work on a row
    N_EXPERTS,
    RULE,  # how scores become a choice
    ROUTES,  # of each row N_ACTIVE whole numbers and as many weights: which experts, and how much they count
    TILES,  # 1: where many rows are multiplied by tiles, so is this, or it is what those read
    REPEATS,  # of PREPARE: rows of `in` for each row
) = range(43)
ROW_SIZE = REPEATS + 1
