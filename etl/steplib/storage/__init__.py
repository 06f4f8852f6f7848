"""Opening a storage, create-only writes, and what its errors mean."""
