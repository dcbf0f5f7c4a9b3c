"""A trained network outside its study: exported, and run on the CT of somebody else."""
