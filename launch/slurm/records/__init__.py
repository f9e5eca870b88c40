"""Files in a run's folder that the login node and the job write for each other."""
