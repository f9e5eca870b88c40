"""The errors of a network on the validation images, counted exactly."""
