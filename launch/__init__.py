"""What a person types."""

import pipeline as pipeline  # first of all: it says how torch's threads wait
from pipeline.system.extras import exit_unless_installed

exit_unless_installed("psutil", "pyarrow", "submitit", "xxhash", needed_by="launch/")
