"""One module per verb, imported only when its verb is invoked; the table is in `launch.cli`."""
