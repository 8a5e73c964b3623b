"""Which documents are kept: thresholds, duplicates, contamination, the validation split."""
