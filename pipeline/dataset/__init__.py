"""What the images are (`index`), in which `order` they come, and how each is cut (`augment`).

All of it is a pure function of (dataset, seed, position): no file is read here but the index.
"""
