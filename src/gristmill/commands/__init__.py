"""One file per verb of the command line that is not a step."""
