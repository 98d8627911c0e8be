"""Red team: attackers that train, sign and argue, and what the checks make of them."""
