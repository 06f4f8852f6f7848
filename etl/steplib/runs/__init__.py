"""One run (folder, lock, log, manifest) and all runs together."""
