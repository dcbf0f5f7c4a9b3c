"""Trainings as jobs: what a study needs, made once by whoever claims it, kept in the run store."""
