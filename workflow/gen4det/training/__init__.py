"""Long jobs that learn: where they keep their progress, when they stop, the loop they run."""
