"""A stock model folder out, parity proven."""
