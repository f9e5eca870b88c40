"""What runs inside a training process."""

import os

# Read when torch is loaded. Its CPU threads wait for each other by spinning for milliseconds, on
# cores that others need; this short, waiting costs next to nothing alone (see BENCHMARKS.md) and
# leaves a shared machine twice as fast.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
