"""Figures, tables and an HTML page from arrays."""
