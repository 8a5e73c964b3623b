"""How a pretraining stands, by its logs and its recipe and without a model: budgets, trends, what comes next, what looks wrong."""
