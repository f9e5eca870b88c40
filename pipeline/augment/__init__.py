"""What an augmentation does to each image, decided from (seed, epoch, sample) alone."""
