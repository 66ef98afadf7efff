"""How kinds of ops become records: what `lower` puts together."""
