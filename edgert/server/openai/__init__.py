"""OpenAI's protocol: chat and text completions, responses, embeddings, models."""
