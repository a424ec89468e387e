from kdsweep.cli import command_line

command_line()
