"""What went wrong in a run: evidence, looks at the flights, and the rules that name a failure."""
