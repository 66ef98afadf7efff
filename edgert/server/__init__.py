"""The local REST server: OpenAI's protocol over one model."""
