"""What `launch/benchmark.py` measures."""
