"""Token ids in, token ids out: sampling, cache bookkeeping, scheduling, and the thread that owns a session."""
