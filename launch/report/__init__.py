"""The report: one HTML file about a run that opens anywhere and asks nothing of the network."""
