"""Trackers: where runs and students are kept for comparison."""
