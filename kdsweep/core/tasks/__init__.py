"""What the kind of a task decides."""
