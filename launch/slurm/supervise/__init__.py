"""Inside the job: the supervisor starts attempts, restarts them and requeues the job."""
