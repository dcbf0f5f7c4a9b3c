"""Figures from predictions; nothing here runs a network to get a metric."""
