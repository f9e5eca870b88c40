"""The programs that a person runs, and the packages behind them."""

import pipeline as pipeline  # first: it configures how torch's threads wait
