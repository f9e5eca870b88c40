"""What runs inside a training process."""

import os

# torch reads this when it is loaded. By default its idle CPU threads spin for milliseconds, on
# cores that others need. A short spin costs almost nothing on an unshared machine (see
# BENCHMARKS.md) and makes a shared one twice as fast.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
