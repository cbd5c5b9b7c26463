"""Runs: settings, config.json, training, checkpoints, and the images of a run."""
