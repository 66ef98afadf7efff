"""The models of a server: which there are, loading them when they are asked for, unloading them when room is needed."""
