"""Opening a place that fsspec supports, create-only writes, and what its errors mean."""
