"""One short file per architecture; each declares an `ARCHITECTURE`."""
