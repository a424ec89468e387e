"""From trials to an answer."""
