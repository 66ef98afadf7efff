"""Models of the Hugging Face hub: fetching them, what is on this machine, deleting them.

All in huggingface_hub's cache, which other tools share. That package is imported when something is fetched or deleted:
models that are there already open without it.
"""
