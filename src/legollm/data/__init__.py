"""Text -> batches of ids.

    sources.open_source    a word of the configuration -> documents, in bounded pieces
    fetch.fetch            a public data set -> corpora/NAME/, checked
    prepare.prepare        documents + tokenizer -> data/NAME/{train,val}.bin, .idx, meta.json
    loader.WindowBatches   token files -> (B, T) batches, shuffled and resumable; legollm.training takes them from here
    summary.summarise      documents -> figures about them

What can be chosen: sources.SOURCES (kinds of corpora), recipes.RECIPES (data sets), world (the built-in corpus).
"""
