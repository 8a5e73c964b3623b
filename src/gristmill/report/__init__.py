"""One page made from records only."""
