"""The recipe: what the model is made of, what it will cost, and the one commit protocol for everything made from it."""
