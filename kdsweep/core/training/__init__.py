"""The training loop: prepare, step, save, restore."""
