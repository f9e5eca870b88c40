"""What `launch/benchmark.py` and `launch/order_quality.py` measure."""
