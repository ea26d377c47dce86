"""Measurements: never part of the tests. ``python -m benchmarks`` runs them; ``--write`` renews docs/benchmarks.md."""
