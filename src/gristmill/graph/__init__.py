"""Steps: what one is, what it is given, where and how it runs."""
