"""More rows for the teacher to label: copies of train with other words."""
