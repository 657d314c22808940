"""Studies: what is compared, where its cells lie, what the numbers say, and how that is shown. No training here."""
