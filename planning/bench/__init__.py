"""Benchmarks: a plan of cells, each measured through a real gateway, and what became of them, in one file.

Pure: `plan`, `results`, `comparison`. With I/O: `stage` (the processes), `conduct` (the order of things).
"""
