"""What a study will take, before it runs: slices, updates, hours, disk."""
