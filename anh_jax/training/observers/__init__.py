"""What looks at every completed step: attestation, evaluation, checkpoints, metrics, progress."""
