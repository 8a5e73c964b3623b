"""Ablations: arms that differ in their data and in nothing else, each trained with the same seeds, and what tells them apart."""
