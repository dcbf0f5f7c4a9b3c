"""The training engine: batches, the loop, checkpoints, devices and processes."""
