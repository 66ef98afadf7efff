"""The local REST server: the protocols of OpenAI, Anthropic and Ollama, and routes of its own, over one model."""
