"""What a run costs before it is started: jobs per rule, GPU-hours, disk."""
