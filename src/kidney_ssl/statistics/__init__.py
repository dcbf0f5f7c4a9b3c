"""Intervals and comparisons: bootstrap over cases, paired differences, learning curves, cross-validation."""
