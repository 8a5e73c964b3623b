"""Parts of make_sample.py: one file for each kind of material in samples/quickstart."""
