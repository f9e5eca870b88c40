"""Several trainings that differ in some settings."""
