"""The outside world behind small interfaces: clock, lake, database, vectors, registry, sources."""
