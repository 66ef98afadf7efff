"""What several tests share: tiny models, random weights, batches."""
