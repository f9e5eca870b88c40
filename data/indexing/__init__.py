"""From a source to samples: list what there is, read it in units in parallel, check the result."""
