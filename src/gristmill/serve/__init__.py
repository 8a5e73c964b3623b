"""Models loaded once for generation: for the terminal, and for a server with an OpenAI-compatible API."""
