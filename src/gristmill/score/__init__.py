"""Quality scores for documents: classifiers taught by annotations."""
