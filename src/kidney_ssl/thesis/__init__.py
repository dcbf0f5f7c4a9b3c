"""The thesis: its claims, its figures, and where this project departs from it."""
