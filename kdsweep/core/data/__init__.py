"""From a dataset to batches: rows, labels, splits, tokens."""
