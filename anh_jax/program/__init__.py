"""Programs: the contract's code as stored StableHLO, and how to run it."""
