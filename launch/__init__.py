"""The programs that users run, and the packages behind them."""

import pipeline as pipeline  # first: it configures how torch's threads wait
from pipeline.system.extras import exit_unless_installed

exit_unless_installed("psutil", "pyarrow", "submitit", "xxhash", needed_by="this program")
