"""From a folder of text to a recipe: what is there, counted; what it is enough for; the file."""
