"""How each image is augmented, decided from (seed, epoch, sample) alone."""
