"""Sources of images, and the tools that index, check and show them."""

from pipeline.system.extras import exit_unless_installed

exit_unless_installed("pyarrow", "scipy", "sklearn", "xxhash", needed_by="this program")
