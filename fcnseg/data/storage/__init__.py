"""Decoded samples kept: in memory, in one file, or packed into shards."""
