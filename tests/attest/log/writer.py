"""A process that appends to a log and prints every index it was given, before it goes on.

Usage: writer.py LOG NAME COUNT; tests start several at once, or kill one.
"""

import importlib.util
import random
import sys
from pathlib import Path

from attest.log.sequencer import LocalLog
from attest.statements import Intent


def load_lab():
    spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("lab.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(directory: str, name: str, count: int) -> None:
    lab = load_lab()
    choose = random.Random(name)
    contract = lab.contract().id
    with LocalLog.open(directory) as log:
        number = 0
        while number < count:
            batch = min(choose.choice((1, 1, 2, 5, 17)), count - number)
            intents = [
                Intent("contract", contract, name, lab.nonce_of(name, number + i).hex())
                for i in range(batch)
            ]
            envelopes = [lab.signed(intent, name) for intent in intents]
            indices = log.append(envelopes, keys=[lab.key(name).public])
            for envelope, index in zip(envelopes, indices, strict=True):
                print(index, envelope.record_hash().hex())
            sys.stdout.flush()
            number += batch
            if choose.random() < 0.3:
                log.checkpoint()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
