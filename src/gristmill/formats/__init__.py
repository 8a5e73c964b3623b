"""Formats of raw text, one file each: how its files are cut, looked at and read."""
