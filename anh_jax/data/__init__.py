"""Examples: where they come from, in which order a run sees them, and what commits them."""
