"""Training on several processes: starting them, what they share, how they work together."""
