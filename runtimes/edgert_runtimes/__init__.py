"""How a plan runs: the backend contract, the registry and the backends."""
