"""WebDataset shards written from any indexed dataset."""
