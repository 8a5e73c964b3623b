"""From raw records to clean documents: main text, formulas, language, rules."""
