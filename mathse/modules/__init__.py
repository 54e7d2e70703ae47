"""LightningModules: supervised fine-tuning of the student, and of the Outcome Reward Model."""
