"""The source of the data as a stream of bytes: local files and web addresses."""
