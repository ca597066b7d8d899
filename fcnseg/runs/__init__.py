"""Runs: what one is on disk and in phases, from a config to objects and to records."""
