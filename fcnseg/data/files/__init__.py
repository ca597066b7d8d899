"""What lies on disk: images and labels in every format, lists of them, checksums."""
