"""What a pretraining measures on the way, how much of it, and what it notes of that."""
