"""Teachers and students: loading, layers, and what is known of them before training."""
