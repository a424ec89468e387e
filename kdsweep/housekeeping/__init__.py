"""Keeping a home in order: which sweeps there are, stopping and removing one, and the caches."""
