"""Training on any number of devices: Lightning modules, batches, and a new resumable Trainer per training."""
