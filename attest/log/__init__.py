"""The log's own side: store, admission, sequencing, repair check, shipping of step files."""
