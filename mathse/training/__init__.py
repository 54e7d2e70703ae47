"""A fit on whatever devices there are: Lightning modules, batches, one fresh resumable Trainer a fit."""
