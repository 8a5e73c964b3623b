"""Models that answer: loaded once, for the terminal and for a server with OpenAI's interface."""
