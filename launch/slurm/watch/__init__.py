"""Looking after queued jobs from outside, where no job can help itself."""
