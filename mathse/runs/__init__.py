"""The run folder: durable rows and files, stages and their dependencies, one process at a time."""
