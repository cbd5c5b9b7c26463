"""Metrics of a trained run on labelled images or volumes."""
