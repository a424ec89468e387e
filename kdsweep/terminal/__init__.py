"""What a person sees on a terminal: live progress, plain lines when piped, and tables of facts."""
