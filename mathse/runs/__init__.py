"""The run folder: durable rows and files, stages and what they depend on, one owner at a time."""
