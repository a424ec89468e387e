"""The report: built from trials, drawn, and put into words."""
