"""One thread a test process: several run at once, and threads that wait in turns only wait."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shells start what they put into the background with Ctrl-C ignored, which children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
