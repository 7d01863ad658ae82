"""Measurements of speed and of faults, with dated results. See README.md."""
