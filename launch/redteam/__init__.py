"""Red team: attacks on the log, the proof, the sample and the auditors."""
