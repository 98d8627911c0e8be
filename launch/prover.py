"""Puts the run proof together from the run's log, and the policy that a run writes about itself."""

from pathlib import Path

from anh_jax.run_directory import RunDirectory, write_atomically
from attest.assembly import assemble
from attest.checkpoint import Checkpoint
from attest.errors import AttestError, InputError
from attest.keys import PrivateKey, Role, keyid
from attest.log.run_log import RunLog
from attest.log.shipper import Shipper
from attest.note import KeyName, Note
from attest.policy import policy_text, self_policy
from attest.proof import encode_proof, parse_proof
from attest.statements import Genesis, decode_statement
from attest.trust import Policy

# Roles whose keys may lie in a run directory, and under which name.
_OWN_KEYS = {
    Role.AUTHOR: "author",
    Role.RUN: "run",
    Role.AUDITOR: "auditor",
    Role.MONITOR: "monitor",
}


def prove(
    run: RunDirectory, log: RunLog, *, output: Path | None = None, reader: Policy | None = None
) -> Path:
    """Log what is signed but not logged yet, then write run proof and policy; return the proof.

    Records by keys that the policy `reader` names go in first, should not all fit, and of the
    checkpoint's witness lines those by its witnesses stay; without one, the log's own witness's.
    Raises InputError where the run is not final: there is nothing to prove then.
    """
    if not run.has_statement("final"):
        raise InputError(
            f"{run.root}: the run is not final; go on with 'anh resume {run.root}' first, "
            "or, where the loop is your own, let it come to its end"
        )
    Shipper(run.root, log).drain()
    return write_proof(run, log, output=output, reader=reader)


def write_proof(
    run: RunDirectory, log: RunLog, *, output: Path | None = None, reader: Policy | None = None
) -> Path:
    """Write the proof of what the log holds about the run, and the run's own policy."""
    identity = run.statement("genesis").record_hash().hex()
    path = output or run.root / "run.proof"
    # Who verified the proof before this one remembers its checkpoint: show them the growth.
    preferred = {keyid(public) for public in _own_keys(run).values()}
    preferred |= set() if reader is None else {entry.keyid for entry in reader.keys}
    names, note = log.names, log.checkpoint()
    size = Checkpoint.from_text(Note.from_bytes(note).text).size
    named = [names.witness] if reader is None else [witness.key for witness in reader.witnesses]
    shown = {KeyName.of(key) for key in (names.log, *named)}

    def with_known_lines(note: bytes) -> bytes:
        # A reader refuses a checkpoint with lines by witnesses that its policy does not name.
        return Note.from_bytes(note).signed_only(shown).to_bytes()

    def checkpoint_of(size: int) -> bytes | None:
        kept = log.checkpoint_of(size)
        return None if kept is None else with_known_lines(kept)

    proof = assemble(
        log,
        identity,
        with_known_lines(note),
        sizes=_size_of(path),
        preferred=preferred,
        among=((index, record) for index, record in log.notes(identity) if index < size),
        checkpoint_of=checkpoint_of,
    )
    write_atomically(path, encode_proof(proof))
    write_policy(run, log)
    return path


def _size_of(path: Path) -> tuple[int, ...]:
    """Return the log size of the proof that lies at `path`, if one does."""
    if not path.exists():
        return ()
    try:
        note = Note.from_bytes(parse_proof(path.read_bytes()).checkpoint)
        return (Checkpoint.from_text(note.text).size,)
    except AttestError:
        return ()  # a damaged proof is about to be replaced by a whole one


def write_policy(run: RunDirectory, log: RunLog) -> None:
    """Write the run's own policy: every key is the trainer's, so it caps at `logged (self)`."""
    genesis = decode_statement(run.statement("genesis").payload)
    assert isinstance(genesis, Genesis)
    policy = self_policy(
        operator=genesis.trainer,
        origin=log.origin,
        log=log.names.log,
        witness=log.names.witness,
        keys=_own_keys(run),
    )
    write_atomically(run.root / "policy.toml", policy_text(policy).encode())


def _own_keys(run: RunDirectory) -> dict[Role, bytes]:
    return {
        role: PrivateKey.load(run.key_path(name)).public
        for role, name in _OWN_KEYS.items()
        if run.key_path(name).exists()
    }
