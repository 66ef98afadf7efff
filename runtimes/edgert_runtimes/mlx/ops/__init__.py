"""The ops of a plan as functions of MLX arrays: each takes an op and the weights, and gives what runs it."""
