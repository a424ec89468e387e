"""`kdsweep init`: a first search space, from a look at a dataset's columns."""
