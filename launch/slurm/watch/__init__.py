"""Looking after queued runs from outside."""
