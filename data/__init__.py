"""Datasets: programs that prepare, verify and show them, and the packages behind them."""

from pipeline.system.extras import exit_unless_installed

exit_unless_installed("pyarrow", "scipy", "sklearn", "xxhash", needed_by="this program")
