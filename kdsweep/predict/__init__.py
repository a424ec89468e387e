"""`kdsweep predict`: a student's answers beside the rows of a file."""
