"""Prefixes on disk: what the cache has no room for, and what is to be there after a restart."""
