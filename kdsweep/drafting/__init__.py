"""A first search space from a look at somebody's data: what its columns are, and a commented file for `kdsweep plan`."""
