"""The source of the data as a stream of bytes: local files, web addresses and objects in a storage."""
