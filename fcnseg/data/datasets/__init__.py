"""Datasets by their layouts on disk, one file each."""
