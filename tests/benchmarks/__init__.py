"""What the server costs, beside the least that could do the same: ``python -m tests.benchmarks --help``.

Every figure is a ratio of two things measured in one run, in turns, so that it means the same on any machine.
"""
