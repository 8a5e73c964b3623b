"""Which documents stay: thresholds, duplicates, contamination, the validation split."""
