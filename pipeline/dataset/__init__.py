"""What the images are (`index`), and in which order they come (`order`, `windows`).

Orders are pure functions of (dataset, seed, position). Only the index and its manifest are read
here, never an image.
"""
