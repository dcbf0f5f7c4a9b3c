"""From CT volumes to normalised slices: everything that needs no network."""
