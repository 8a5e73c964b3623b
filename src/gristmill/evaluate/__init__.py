"""Scores with item counts and error bars."""
