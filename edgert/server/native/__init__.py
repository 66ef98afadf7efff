"""Routes of the server's own, after llama.cpp's: health, metrics, slots, tokens, templates."""
