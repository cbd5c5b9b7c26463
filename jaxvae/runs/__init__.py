"""A run: its configuration, its training, its checkpoints."""
