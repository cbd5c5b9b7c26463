"""Volumes of scans: files, slices, and caches of prepared slices."""
