"""What a person types."""

import pipeline as pipeline  # first of all: it says how torch's threads wait
