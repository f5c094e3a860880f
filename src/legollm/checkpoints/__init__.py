"""A model goes to disk and comes back.

A checkpoint folder is a Hugging Face folder (huggingface.py, from files that reader.py and shards.py have checked) with
what training needs beside it (state.py) and a manifest that makes it all or nothing (manifest.py); loading.py opens any
of them as a model that generates, quantised ones too (quantized.py). convert.py goes from folder to folder and
gguf_models.py to a single file (gguf.py), both with proof (receipt.py).
"""
