"""Metrics from predictions; nothing here runs a network."""
