"""What runs trials on slots."""
