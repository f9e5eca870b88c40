"""How a source becomes samples: surveyed, read in units side by side, and held to its promise."""
