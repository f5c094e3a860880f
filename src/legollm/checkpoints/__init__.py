"""A model goes to disk and comes back.

A checkpoint folder is a Hugging Face folder (huggingface.py) with what training needs beside it (state.py) and a
manifest that makes it all or nothing (manifest.py); loading.py opens any of them as a model that generates.
"""
