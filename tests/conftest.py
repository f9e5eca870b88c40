"""One thread a test process: several run at once, and threads that wait in turns only wait."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
