"""Samples in, samples out: formats, resampling, files. Knows no clock, no socket and no session."""
