"""Conversations made from the corpus itself."""
