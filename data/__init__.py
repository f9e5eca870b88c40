"""Datasets: programs that prepare, verify and show them, and the packages behind these."""
