"""Where images come from. Each module stands alone and returns `dataset.Dataset` records of NumPy arrays."""
