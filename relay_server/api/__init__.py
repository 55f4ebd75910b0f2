"""The OpenAI-compatible API: through this door the relay sees the prompt."""
