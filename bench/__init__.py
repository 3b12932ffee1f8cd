"""Measures pymig against floors and other tools; every figure is a ratio within one run."""
