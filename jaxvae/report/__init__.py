"""Figures, tables and a page for people who would rather look than read; plain arrays in, files out."""
