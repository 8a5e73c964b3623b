"""From documents to training batches: tokenizer, shards, mixture, stream."""
