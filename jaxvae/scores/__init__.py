"""How anomalous an image is, and each of its pixels."""
