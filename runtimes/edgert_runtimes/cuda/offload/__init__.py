"""Experts that do not fit: some in the GPU's memory, all in the host's, each computed where it is done sooner."""
