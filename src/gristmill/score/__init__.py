"""Quality scores for documents: classifiers learnt from annotations."""
