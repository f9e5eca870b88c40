"""Sources of images, and the tools that index, check and show them."""
