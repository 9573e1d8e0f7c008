"""Sweeps, sliders and generation against other libraries: `python -m benchmarks`."""
