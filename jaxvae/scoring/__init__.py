"""Scores of images and volumes by a trained run, and their maps in files."""
