"""The recipe: every decision that defines the model, as strict frozen models, along the lifecycle."""
