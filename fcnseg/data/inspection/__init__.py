"""The workshop: every pair of a dataset looked at, with a report, pictures and a description of it."""
