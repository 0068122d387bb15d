"""An engine for tests: no model, two images per shard, as slow and as greedy as a test wants it."""
