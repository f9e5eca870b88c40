"""What the login node and the job write into a run's folder for each other."""
