"""Judge backends: endpoints, batches, models in memory, programs."""
